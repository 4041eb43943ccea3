"""Ask the signup gate before you make an account. Python, standard library only.

`refusal(email)` is what you copy: None lets the person in, a text is to be shown beside the field.
When the gate cannot be asked, the person is let in. (With `pip install signup-gate` there is
`gate.client`, which keeps its connections and has types.)

    GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… python signup.py
"""

import json
import os
import sys
import urllib.request

GATE_URL = os.environ["GATE_URL"]
GATE_SECRET = os.environ["GATE_SECRET"]  # for servers only, never in a page
TIMEOUT = 2.0  # seconds; the gate answers within 0.8 of its own accord

# The address goes to your gate and nowhere else, not even through a proxy of the environment.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def refusal(email: str) -> "str | None":
    """None, or what to tell the person."""
    if len(email) > 254 or not email.isprintable():
        return "This is no e-mail address."
    request = urllib.request.Request(
        f"{GATE_URL}/v1/check",
        data=json.dumps({"email": email}).encode(),
        headers={"Authorization": f"Bearer {GATE_SECRET}", "Content-Type": "application/json"},
    )
    try:
        with http.open(request, timeout=TIMEOUT) as response:
            answer = json.loads(response.read(65536))
        if answer["decision"] != "block":
            return None
        suggestion = answer.get("did_you_mean")
    except Exception as error:
        print(f"signup gate: {type(error).__name__}", file=sys.stderr)
        return None
    if suggestion:
        return f"This address cannot be used. Did you mean {suggestion}?"
    return "This address cannot be used. Is it spelled right?"


if __name__ == "__main__":
    for line in sys.stdin:
        said = refusal(line.strip())
        print("allow" if said is None else f"block: {said}")
