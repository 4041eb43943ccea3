// Ask the signup gate before you make an account. Go 1.19 or newer, standard library only.
//
// Refusal is what you copy: "" lets the person in, a text is to be shown beside the field. When the
// gate cannot be asked, the person is let in.
//
//	GATE_URL=http://127.0.0.1:8080 GATE_SECRET=sk_… go run signup.go
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

// The gate answers within 0.8 s of its own accord. The address goes to your gate and nowhere else,
// not even through a proxy of the environment.
var client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}

type verdict struct {
	Decision   string `json:"decision"`
	DidYouMean string `json:"did_you_mean"`
}

// Refusal says what to tell the person, or "".
func Refusal(email string) string {
	if len(email) > 254 {
		return "This is too long for an e-mail address."
	}
	answer, err := check(email)
	if err != nil {
		log.Print("signup gate: ", err)
		return ""
	}
	if answer.Decision != "block" {
		return ""
	}
	if answer.DidYouMean != "" {
		return "This address cannot be used. Did you mean " + answer.DidYouMean + "?"
	}
	return "This address cannot be used. Is it spelled right?"
}

func check(email string) (answer verdict, err error) {
	body, err := json.Marshal(map[string]string{"email": email})
	if err != nil {
		return answer, err
	}
	request, err := http.NewRequest("POST", os.Getenv("GATE_URL")+"/v1/check", bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	// The secret is for servers only, never in a page.
	request.Header.Set("Authorization", "Bearer "+os.Getenv("GATE_SECRET"))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("status %d", response.StatusCode)
	}
	err = json.NewDecoder(io.LimitReader(response.Body, 65536)).Decode(&answer)
	return answer, err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if said := Refusal(strings.TrimSpace(lines.Text())); said != "" {
			fmt.Println("block:", said)
		} else {
			fmt.Println("allow")
		}
	}
}
