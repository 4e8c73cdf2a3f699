package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// serve answers `/` with its name and instance and `/report` with all that the process sees. It ends at
// once on TERM, as most servers do. `/exit` ends it with status 1: a crash.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	name := flags.String("name", "witness", "what the pod is called in announcements")
	listen := flags.String("listen", ":8080", "address to serve on")
	announce := flags.String("announce", "", "UDP address to tell of this instance every 20 ms")
	look := flags.String("look", "", "paths to report, with everything below them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	instance := strconv.FormatInt(time.Now().UnixNano(), 36)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-signals; os.Exit(0) }()
	if *announce != "" {
		go tell(*announce, *name+" "+instance)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, *name, instance) })
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	http.HandleFunc("/report", func(w http.ResponseWriter, _ *http.Request) {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", " ")
		_ = encoder.Encode(see(strings.Split(*look, ",")))
	})
	return http.Serve(listener, nil)
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
