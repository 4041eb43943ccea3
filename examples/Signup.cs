// Ask the signup gate before you make an account. C#, .NET 6 or newer or Mono, no package.
//
// SignupGate.Refusal(email) is what you copy: null lets the person in, a text is to be shown beside
// the field. When the gate cannot be asked, the person is let in.
//
//     GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… dotnet run
using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.IO;
using System.Text;
using System.Threading.Tasks;

[DataContract]
public class Verdict
{
    [DataMember(Name = "decision")] public string Decision;
    [DataMember(Name = "did_you_mean")] public string DidYouMean;
}

public static class SignupGate
{
    static readonly string Url = Environment.GetEnvironmentVariable("GATE_URL");

    // For servers only, never in a page.
    static readonly string Secret = Environment.GetEnvironmentVariable("GATE_SECRET");

    // One client for the process, so that connections are kept. The gate answers within 0.8 s of its
    // own accord. The address goes to your gate and nowhere else, not even through a proxy.
    static readonly HttpClient Http = new HttpClient(new HttpClientHandler { UseProxy = false })
    {
        Timeout = TimeSpan.FromSeconds(2),
        MaxResponseContentBufferSize = 65536,
    };

    public static async Task<string> Refusal(string email)
    {
        if (email.Length > 254) return "This is too long for an e-mail address.";
        Verdict answer;
        try
        {
            answer = await Check(email);
        }
        catch (Exception error)
        {
            Console.Error.WriteLine("signup gate: " + error.GetType().Name);
            return null;
        }
        if (answer == null || answer.Decision != "block") return null;
        return answer.DidYouMean != null
            ? "This address cannot be used. Did you mean " + answer.DidYouMean + "?"
            : "This address cannot be used. Is it spelled right?";
    }

    static async Task<Verdict> Check(string email)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, Url + "/v1/check");
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", Secret);
        var form = "email=" + Uri.EscapeDataString(email);
        request.Content = new StringContent(
            form, Encoding.UTF8, "application/x-www-form-urlencoded");
        using (var response = await Http.SendAsync(request))
        {
            response.EnsureSuccessStatusCode();
            var body = await response.Content.ReadAsByteArrayAsync();
            var reader = new DataContractJsonSerializer(typeof(Verdict));
            return (Verdict)reader.ReadObject(new MemoryStream(body));
        }
    }
}

public static class Program
{
    public static void Main()
    {
        string line;
        while ((line = Console.ReadLine()) != null)
        {
            var said = SignupGate.Refusal(line.Trim()).GetAwaiter().GetResult();
            Console.WriteLine(said == null ? "allow" : "block: " + said);
        }
        Environment.Exit(0); // Mono would wait for its idle threads, at times for a minute
    }
}
