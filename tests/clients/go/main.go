// A real grpc-go client, steered over standard input by lines of JSON.
//
// Each command is an object with "id", "do" and its arguments; each gets one
// line of JSON back with the same "id" and either "ok" or "error". Commands run
// side by side, so a call that waits holds up nothing. The commands and the
// reports are those of ../python/driver.py.
//
// Built twice: with this directory's go.mod, and with that of ../go-old and the
// build tag "old". The client is unmodified: nothing here knows of lookaside.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"

	"google.golang.org/grpc"
	// All that a Go client needs for grpclb: it looks up SRV records once this
	// is linked in.
	_ "google.golang.org/grpc/balancer/grpclb"
)

// command is what a line says. Each kind of command reads its own fields.
type command struct {
	ID      uint64
	Do      string
	Channel uint64
	opening
	calls
}

// driver carries out commands.
type driver struct {
	mu       sync.Mutex
	channels map[uint64]*channel
}

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	var writing sync.Mutex
	answer := func(id uint64, ok any, err error) {
		reply := map[string]any{"id": id, "ok": ok}
		if err != nil {
			reply = map[string]any{"id": id, "error": err.Error()}
		}
		writing.Lock()
		defer writing.Unlock()
		if err := out.Encode(reply); err != nil {
			log.Fatal(err)
		}
	}
	driver := driver{channels: map[uint64]*channel{}}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command command
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			log.Fatalf("%v: %s", err, lines.Bytes())
		}
		carryOut := func() {
			ok, err := driver.carryOut(&command)
			answer(command.ID, ok, err)
		}
		if command.Do == "open" || command.Do == "start" {
			// At once and in order: what follows may rely on them.
			carryOut()
		} else {
			go carryOut()
		}
	}
	// Calls that still wait end with the process.
}

func (d *driver) carryOut(command *command) (any, error) {
	d.mu.Lock()
	known, found := d.channels[command.Channel]
	d.mu.Unlock()
	switch command.Do {
	case "hello":
		return map[string]string{"version": "grpc-go " + grpc.Version}, nil
	case "open":
		opened, err := open(&command.opening)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.channels[command.Channel] = opened
		d.mu.Unlock()
		return nil, nil
	}
	if !found {
		return nil, errors.New("no such channel")
	}
	switch command.Do {
	case "call":
		return known.call(&command.calls, command.Count, nil), nil
	case "start":
		return nil, known.start(command.calls)
	case "stop":
		return known.stop()
	case "close":
		d.mu.Lock()
		delete(d.channels, command.Channel)
		d.mu.Unlock()
		return nil, known.close()
	}
	return nil, fmt.Errorf("no such command: %s", command.Do)
}
