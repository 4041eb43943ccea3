<?php
// Ask the signup gate before you make an account. PHP 8 with the curl extension.
//
// gate_refusal($email) is what you copy: null lets the person in, a text is to be shown beside the
// field. When the gate cannot be asked, the person is let in.
//
//     GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… php signup.php

declare(strict_types=1);

function gate_refusal(string $email): ?string
{
    if (strlen($email) > 254) {
        return 'This is too long for an e-mail address.';
    }
    $request = curl_init(getenv('GATE_URL') . '/v1/check');
    curl_setopt_array($request, [
        CURLOPT_POSTFIELDS => json_encode(['email' => $email], JSON_INVALID_UTF8_SUBSTITUTE),
        CURLOPT_HTTPHEADER => [
            'Authorization: Bearer ' . getenv('GATE_SECRET'), // for servers only, never in a page
            'Content-Type: application/json',
        ],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT_MS => 2000, // the gate answers within 800 of its own accord
        CURLOPT_NOSIGNAL => true,
        CURLOPT_PROXY => '',
    ]);
    $body = curl_exec($request);
    $status = curl_getinfo($request, CURLINFO_RESPONSE_CODE);
    $answer = is_string($body) && $status === 200 ? json_decode($body, true) : null;
    if (!is_array($answer)) {
        error_log("signup gate: no answer (status $status)");
        return null;
    }
    if (($answer['decision'] ?? null) !== 'block') {
        return null;
    }
    $suggestion = $answer['did_you_mean'] ?? null;
    return $suggestion !== null
        ? "This address cannot be used. Did you mean $suggestion?"
        : 'This address cannot be used. Is it spelled right?';
}

if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    while (($line = fgets(STDIN)) !== false) {
        $said = gate_refusal(trim($line));
        echo $said === null ? "allow\n" : "block: $said\n";
    }
}
