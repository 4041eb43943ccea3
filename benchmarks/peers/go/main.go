// AfterShip/email-verifier: answers address after address, as the benchmark asks.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	emailverifier "github.com/AfterShip/email-verifier"
)

func said(found *emailverifier.Result, err error) string {
	switch {
	case err != nil || found.SMTP == nil:
		return "unknown"
	case found.SMTP.CatchAll:
		return "accepts all"
	case found.SMTP.FullInbox:
		return "full"
	case found.Reachable == "yes":
		return "exists"
	case found.Reachable == "no":
		return "missing"
	}
	return "unknown"
}

func main() {
	verifier := emailverifier.NewVerifier().EnableSMTPCheck().
		FromEmail("probe@lab.example.com").HelloName("good.lab.example.com")
	atOnce, _ := strconv.Atoi(os.Args[1])
	places := make(chan bool, atOnce)
	var output sync.Mutex
	var running sync.WaitGroup
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		email := lines.Text()
		places <- true
		running.Add(1)
		go func() {
			defer running.Done()
			started := time.Now()
			found, err := verifier.Verify(email)
			ms := float64(time.Since(started).Microseconds()) / 1000
			line, _ := json.Marshal(map[string]any{"email": email, "said": said(found, err), "ms": ms})
			output.Lock()
			fmt.Println(string(line))
			output.Unlock()
			<-places
		}()
	}
	running.Wait()
}
