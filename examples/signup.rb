# Ask the signup gate before you make an account. Ruby 3, standard library only.
#
# SignupGate.refusal(email) is what you copy: nil lets the person in, a text is to be shown beside
# the field. When the gate cannot be asked, the person is let in.
#
#     GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… ruby signup.rb

require "json"
require "net/http"
require "timeout"

module SignupGate
  TIMEOUT = 2 # seconds; the gate answers within 0.8 of its own accord

  def self.refusal(email)
    return "This is too long for an e-mail address." if email.length > 254

    answer = Timeout.timeout(TIMEOUT) { check(email) }
    return nil unless answer["decision"] == "block"

    suggestion = answer["did_you_mean"]
    return "This address cannot be used. Did you mean #{suggestion}?" if suggestion

    "This address cannot be used. Is it spelled right?"
  rescue StandardError => e
    warn "signup gate: #{e.class}"
    nil
  end

  def self.check(email)
    url = URI("#{ENV.fetch("GATE_URL")}/v1/check")
    # No proxy of the environment: the address goes to your gate and nowhere else.
    http = Net::HTTP.new(url.host, url.port, nil)
    http.use_ssl = url.scheme == "https"
    http.open_timeout = http.read_timeout = TIMEOUT
    http.max_retries = 0
    response = http.post(
      url.path,
      JSON.generate({ email: email.scrub }),
      "Authorization" => "Bearer #{ENV.fetch("GATE_SECRET")}", # for servers only, never in a page
      "Content-Type" => "application/json"
    )
    raise "status #{response.code}" unless response.code == "200"

    answer = JSON.parse(response.body)
    answer.is_a?(Hash) ? answer : raise("no answer of a gate")
  end
  private_class_method :check
end

if __FILE__ == $PROGRAM_NAME
  $stdin.each_line do |line|
    said = SignupGate.refusal(line.strip)
    puts said ? "block: #{said}" : "allow"
  end
end
