// Witness is every small program that the stories need beside Kubernetes, in one static binary:
// the process in the pods, the client that watches them from outside, and what stands in for
// a site's name server and for a load balancer without backends.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage:
  witness serve --name NAME --listen ADDRESS [--announce ADDRESS] [--look PATH,…] …
  witness report --into FILE [--name NAME] …       what this process sees, and end
  witness write FILE TEXT                          and end: an init container
  witness run SCRIPT COMMAND…                      the interpreter of a script: its first line names the command
  witness pause                                    the sandbox process: waits, reaps
  witness probe --listen ADDRESS --log FILE NAME=URL… NAME=pod:PORT…
  witness gaps FILE NAME SINCE [UNTIL]             how long NAME went unserved, times in ms since 1970
  witness first FILE NAME SINCE                    when NAME was first served, ms after SINCE
  witness copies FILE NAME SINCE [UNTIL]           the most processes of NAME at once, and how long there was more than one
  witness get URL
  witness collect --into DIRECTORY --side SIDE --network NETWORK …
                                                   what everybody there reports, as NAME.SIDE.json
  witness compare [--except FILE] PARENT.json TWIN.json | DIRECTORY
                                                   exit 3 and the differences where they differ
  witness dns ADDRESS NAME=IP…                     a name server that knows only these
  witness hang ADDRESS                             accepts connections, never answers
  witness stand-in --pki DIRECTORY ADDRESS KIND    answers in the place of an API server, as KIND says`

func main() {
	commands := map[string]func([]string) error{
		"serve": serve, "write": write, "pause": pause, "probe": probe, "gaps": gaps, "first": first,
		"get": get, "report": report, "collect": collect, "compare": compare, "dns": serveNames, "hang": hang,
		"copies": copies, "stand-in": standIn,
	}
	if len(os.Args) > 3 && os.Args[1] == "run" { // `#!/witness run`: the kernel adds the script's path
		os.Args = append(os.Args[:1], os.Args[3:]...)
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

func get(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s", usage)
	}
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get(args[0])
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func write(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%s", usage)
	}
	return os.WriteFile(args[0], []byte(args[1]), 0o644)
}

// pause ends on TERM and reaps what it inherits where a pod shares its process namespace.
func pause([]string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}
