// What the scripts of the Go clients share: how they report. It lies beside the script when it runs.
//
//	cp tests/clients/checks.go tests/clients/go/ollama/
//	cd tests/clients/go/ollama && OLLAMA_HOST=http://127.0.0.1:11434 go run .

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime/debug"
	"time"
)

const limit = 50 * time.Second

var checks []struct {
	name string
	body func()
}

// check adds a function, whose panics are the verdict, to those that run runs.
func check(name string, body func()) {
	checks = append(checks, struct {
		name string
		body func()
	}{name, body})
}

// run runs the checks in order; it prints a line of JSON for each: its name, and the error, if any.
func run() {
	for _, each := range checks {
		began := time.Now()
		verdict := map[string]any{"check": each.name, "error": failure(each.body)}
		verdict["seconds"] = math.Round(time.Since(began).Seconds()*100) / 100
		line, _ := json.Marshal(verdict)
		fmt.Fprintf(os.Stdout, "%s\n", line)
	}
}

// failure returns what the body panicked with, or nil.
func failure(body func()) any {
	done := make(chan any, 1)
	go func() {
		defer func() {
			if reason := recover(); reason != nil {
				done <- fmt.Sprintf("%v\n%s", reason, debug.Stack())
			}
			done <- nil
		}()
		body()
	}()
	select {
	case reason := <-done:
		return reason
	case <-time.After(limit):
		return fmt.Sprintf("not finished within %s", limit)
	}
}

// must returns the value unless there is an error.
func must[T any](value T, err error) T {
	no(err)
	return value
}

func no(err error) {
	if err != nil {
		panic(err)
	}
}

func that(holds bool, message ...any) {
	if !holds {
		panic("does not hold: " + fmt.Sprint(message...))
	}
}

func equal(found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		panic(fmt.Sprintf("%#v instead of %#v", found, wanted))
	}
}
