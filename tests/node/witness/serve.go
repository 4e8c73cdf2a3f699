package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// requests are what probes and hooks sent, each once: what is asked under /asked/.
type requests struct {
	sync.Mutex
	seen map[string]bool
}

var requested = requests{seen: map[string]bool{}}

func (r *requests) add(request *http.Request) {
	r.Lock()
	defer r.Unlock()
	headers := ""
	for name, values := range request.Header {
		if strings.HasPrefix(name, "X-") {
			headers += " " + name + "=" + strings.Join(values, ",")
		}
	}
	r.seen[request.Method+" "+request.Host+request.URL.String()+headers] = true
}

func (r *requests) all() (all []string) {
	r.Lock()
	defer r.Unlock()
	for request := range r.seen {
		all = append(all, request)
	}
	slices.Sort(all)
	return all
}

// serve answers `/` with its name and instance, `/report` with all that the process sees, and `/reports` with that and
// what others of the pod left in the files of --also. It ends at once on TERM, as most servers do. `/exit` ends it with
// status 1: a crash.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	var looking Looking
	looking.flags(flags)
	listen := flags.String("listen", ":8080", "addresses to serve on; only the first must be free")
	announce := flags.String("announce", "", "UDP address to tell of this instance every 20 ms")
	also := flags.String("also", "", "reports in files, of init containers and hooks; they are no part of the own")
	lastWord := flags.String("last-word", "", "file to write the signal to that ends this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	instance := strconv.FormatInt(time.Now().UnixNano(), 36)
	var listeners []net.Listener
	for i, address := range strings.Split(*listen, ",") {
		listener, err := net.Listen("tcp", address)
		if err != nil && i == 0 {
			return err
		}
		if err == nil {
			listeners = append(listeners, listener)
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if *lastWord != "" {
		signal.Notify(signals, syscall.SIGUSR1)
	}
	go func() {
		caught := <-signals
		if *lastWord != "" {
			_ = os.WriteFile(*lastWord, []byte(caught.String()+"\n"), 0o644)
		}
		os.Exit(0)
	}()
	if *announce != "" {
		go tell(*announce, looking.name+" "+instance)
	}
	left := strings.FieldsFunc(*also, func(c rune) bool { return c == ',' })
	looking.skip = strings.Join(append(left, looking.skip), ",")
	answer := func(w http.ResponseWriter, what any) {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", " ")
		_ = encoder.Encode(what)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, looking.name, instance) })
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	http.HandleFunc("/asked/", func(w http.ResponseWriter, r *http.Request) { requested.add(r); fmt.Fprintln(w, "ok") })
	http.HandleFunc("/report", func(w http.ResponseWriter, _ *http.Request) { answer(w, see(looking)) })
	http.HandleFunc("/reports", func(w http.ResponseWriter, _ *http.Request) {
		all := []Report{see(looking)}
		for _, path := range left {
			var other Report
			data, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(data, &other)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			all = append(all, other)
		}
		answer(w, all)
	})
	for _, listener := range listeners[1:] {
		go func() { _ = http.Serve(listener, nil) }()
	}
	return http.Serve(listeners[0], nil)
}

// tell lets the probe know at which address this instance is: a twin's address is not its parent's.
func tell(address, line string) {
	for ; ; time.Sleep(20 * time.Millisecond) {
		if connection, err := net.Dial("udp", address); err == nil {
			_, _ = connection.Write([]byte(line))
			_ = connection.Close()
		}
	}
}
