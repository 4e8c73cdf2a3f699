package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	period  = 50 * time.Millisecond
	patient = 500 * time.Millisecond // longer than an answer over a veth ever takes, shorter than a SYN's retry
)

// announced holds at which addresses each name was heard of lately.
type announced struct {
	sync.Mutex
	at map[string]map[string]time.Time
}

// listen hears announcements, and logs each instance as `alive:NAME` often enough to tell when it lived.
func (a *announced) listen(address string, log io.Writer) error {
	connection, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		logged := map[string]time.Time{}
		for buffer := make([]byte, 512); ; {
			n, from, err := connection.ReadFrom(buffer)
			if err != nil {
				return
			}
			name, instance, _ := strings.Cut(string(buffer[:n]), " ")
			if now := time.Now(); now.Sub(logged[instance]) >= period {
				logged[instance] = now
				fmt.Fprintf(log, "%d alive:%s ok %s\n", now.UnixMilli(), name, instance)
			}
			host, _, _ := net.SplitHostPort(from.String())
			a.Lock()
			if a.at[name] == nil {
				a.at[name] = map[string]time.Time{}
			}
			a.at[name][host] = time.Now()
			a.Unlock()
		}
	}()
	return nil
}

func (a *announced) urls(name, port string) (urls []string) {
	a.Lock()
	defer a.Unlock()
	for host, heard := range a.at[name] {
		if time.Since(heard) < 5*time.Second {
			urls = append(urls, "http://"+net.JoinHostPort(host, port)+"/")
		}
	}
	return urls
}

// probe asks every target every 50 ms, each time over a new connection, and logs one line per answer:
// when it was asked (ms since 1970), target, ok or fail, and who answered or why not. `pod:PORT` means
// every address from which the pod of that name announces itself: its own, as a Service would know it.
func probe(args []string) error {
	flags := flag.NewFlagSet("probe", flag.ExitOnError)
	listen := flags.String("listen", ":9000", "UDP address for announcements")
	path := flags.String("log", "probe.log", "file to append to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log, err := os.OpenFile(*path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	heard := &announced{at: map[string]map[string]time.Time{}}
	if err := heard.listen(*listen, log); err != nil {
		return err
	}
	client := &http.Client{Timeout: patient, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // whether it answers, not who it is
	}}
	for asked := range time.Tick(period) {
		for _, target := range flags.Args() {
			name, url, _ := strings.Cut(target, "=")
			urls := []string{url}
			if port, ok := strings.CutPrefix(url, "pod:"); ok {
				urls = heard.urls(name, port)
			}
			go func() {
				result := ask(client, urls)
				fmt.Fprintf(log, "%d %s %s\n", asked.UnixMilli(), name, result) // one write, so lines stay whole
			}()
		}
	}
	return nil
}

// ask is ok when any of the addresses answers; the first answer counts.
func ask(client *http.Client, urls []string) string {
	answers := make(chan string, len(urls))
	for _, url := range urls {
		go func() {
			response, err := client.Get(url)
			if err != nil {
				answers <- "fail " + err.Error()
				return
			}
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				answers <- "fail " + response.Status
				return
			}
			answers <- "ok " + strings.TrimSpace(string(body))
		}()
	}
	last := "fail no address known"
	for range urls {
		if last = <-answers; strings.HasPrefix(last, "ok") {
			break
		}
	}
	return last
}

type asked struct {
	at   int64
	ok   bool
	what string
}

// window is what a probe asked of one target from since until until, in ms since 1970.
type window struct {
	since, until int64
	// all that was asked since then, in the order of asking; also what came after until
	all []asked
}

// read takes FILE NAME SINCE [UNTIL]; without UNTIL the window ends with the last thing that was asked. The log has the
// target as prefix+NAME.
func read(args []string, prefix string) (*window, error) {
	if len(args) < 3 {
		return nil, fmt.Errorf("%s", usage)
	}
	var bounds []int64
	for _, a := range args[2:] {
		n, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return nil, err
		}
		bounds = append(bounds, n)
	}
	path, name, since := args[0], prefix+args[1], bounds[0]
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []asked
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		f := strings.SplitN(scanner.Text(), " ", 4)
		if len(f) == 4 && f[1] == name {
			if at, err := strconv.ParseInt(f[0], 10, 64); err == nil && at >= since {
				all = append(all, asked{at, f[2] == "ok", f[3]})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: nothing asked of %s since %d", path, name, since)
	}
	slices.SortFunc(all, func(a, b asked) int { return int(a.at - b.at) })
	until := all[len(all)-1].at
	if len(bounds) > 1 {
		until = bounds[1]
	}
	return &window{since, until, all}, nil
}

// gaps prints the seconds unserved, and in brackets each interval that added to them.
func gaps(args []string) error {
	w, err := read(args, "")
	if err != nil {
		return err
	}
	total, from, intervals := int64(0), int64(0), ""
	end := func(at int64) {
		if from != 0 {
			total += at - from
			intervals += fmt.Sprintf(" [%+.2f s: %.2f s]", float64(from-w.since)/1000, float64(at-from)/1000)
			from = 0
		}
	}
	for _, a := range w.all {
		if a.at > w.until {
			break
		}
		if a.ok {
			end(a.at)
		} else if from == 0 {
			from = a.at
		}
	}
	end(w.until)
	fmt.Printf("%.2f%s\n", float64(total)/1000, intervals)
	return nil
}

// first prints after how many seconds the target was served, or fails if it was not.
func first(args []string) error {
	w, err := read(args, "")
	if err != nil {
		return err
	}
	for _, a := range w.all {
		if a.ok {
			fmt.Printf("%.2f\n", float64(a.at-w.since)/1000)
			return nil
		}
	}
	return fmt.Errorf("%s was not served", args[1])
}

// copies prints the most instances that announced themselves at one time, and for how many seconds it was more than one.
// An instance lived from its first announcement to its last, so up to 70 ms of it are not seen.
func copies(args []string) error {
	w, err := read(args, "alive:")
	if err != nil {
		return err
	}
	last := map[string]int64{}
	for _, a := range w.all {
		last[a.what] = a.at
	}
	alive, most, more, before := map[string]bool{}, 0, int64(0), w.all[0].at
	for _, a := range w.all {
		if a.at > w.until {
			break
		}
		if len(alive) > 1 {
			more += a.at - before
		}
		before = a.at
		alive[a.what] = true
		most = max(most, len(alive))
		if last[a.what] == a.at {
			delete(alive, a.what)
		}
	}
	fmt.Printf("%d %.2f\n", most, float64(more)/1000)
	return nil
}

func mapKeys(m map[string]bool) func(func(string) bool) { return maps.Keys(m) }
