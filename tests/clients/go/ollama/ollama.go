// Ollama's own Go package, which its command line uses: every method, and every byte of the answers.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/ollama/ollama/api"
)

var (
	background = context.Background()
	client     = must(api.ClientFromEnvironment())
	noStream   = new(bool)
	quiet      = &api.ThinkValue{Value: false}
	thinking   = &api.ThinkValue{Value: true}
	sky        = []api.Message{{Role: "user", Content: "Why is the sky blue?"}}
)

func weather() api.Tools {
	var tools api.Tools
	no(json.Unmarshal([]byte(`[{"type": "function", "function": {"name": "get_weather",
		"description": "Get the weather", "parameters": {"type": "object", "required": ["city"],
		"properties": {"city": {"type": "string", "description": "The city"}}}}}]`), &tools))
	return tools
}

func chat(request api.ChatRequest) (parts []api.ChatResponse) {
	no(client.Chat(background, &request, func(part api.ChatResponse) error {
		parts = append(parts, part)
		return nil
	}))
	return parts
}

// same asks, decodes each line of the answer into Go's type, in which it may have no other field, and
// encodes it again: the bytes must be the same. Left out are Go's escapes of <, > and &, and its form
// of numbers that are whole or near 0.
func same[T any](method, path, body string) {
	base := must(url.Parse(os.Getenv("OLLAMA_HOST")))
	request := must(http.NewRequest(method, base.JoinPath(path).String(), strings.NewReader(body)))
	response := must(http.DefaultClient.Do(request))
	defer response.Body.Close()
	answer := bytes.TrimRight(must(io.ReadAll(response.Body)), "\n")
	equal(response.StatusCode, 200)
	for _, line := range bytes.Split(answer, []byte("\n")) {
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		decoder.UseNumber()
		var value T
		no(decoder.Decode(&value))
		var again bytes.Buffer
		encoder := json.NewEncoder(&again)
		encoder.SetEscapeHTML(false)
		no(encoder.Encode(value))
		equal(normal(line), normal(bytes.TrimRight(again.Bytes(), "\n")))
	}
}

var special = regexp.MustCompile(`-?[0-9.]+e-[0-9]+|-?[0-9]+\.0\b`)

func normal(line []byte) string {
	return string(special.ReplaceAllFunc(line, func(number []byte) []byte {
		return must(json.Marshal(must(strconv.ParseFloat(string(number), 64))))
	}))
}

func main() {
	check("generate", func() {
		var text string
		var last api.GenerateResponse
		request := &api.GenerateRequest{Model: "demo", Prompt: "Why is the sky blue?", Think: quiet}
		no(client.Generate(background, request, func(part api.GenerateResponse) error {
			text += part.Response
			last = part
			return nil
		}))
		that(strings.Contains(text, "Rayleigh scattering"), text)
		equal(last.DoneReason, "stop")
		that(last.EvalCount > 10 && last.EvalDuration > 0 && len(last.Context) > 10)
	})

	check("chat", func() {
		parts := chat(api.ChatRequest{Model: "demo", Messages: sky, Think: quiet})
		whole := chat(api.ChatRequest{Model: "demo", Messages: sky, Think: quiet, Stream: noStream})
		var text string
		for _, part := range parts {
			text += part.Message.Content
		}
		that(strings.Contains(text, "Rayleigh scattering"), text)
		equal(len(whole), 1)
		equal(whole[0].Message.Content, text)
	})

	check("two calls", func() {
		var cities, ids []string
		for _, part := range chat(api.ChatRequest{Model: "two-calls", Messages: sky, Tools: weather()}) {
			for _, call := range part.Message.ToolCalls {
				city, _ := call.Function.Arguments.Get("city")
				cities = append(cities, city.(string))
				ids = append(ids, call.ID)
				equal(call.Function.Index, len(cities)-1)
			}
		}
		equal(cities, []string{"Paris", "Rome"})
		that(ids[0] != ids[1])
	})

	check("thinking", func() {
		request := api.ChatRequest{Model: "thinks", Messages: sky, Think: thinking, Stream: noStream}
		message := chat(request)[0].Message
		equal(strings.TrimSpace(message.Thinking), "Two and two.")
		equal(strings.TrimSpace(message.Content), "It is four.")
	})

	check("embeddings", func() {
		several := &api.EmbedRequest{Model: "demo-embed", Input: []string{"a", "b"}}
		vectors := must(client.Embed(background, several)).Embeddings
		equal(len(vectors), 2)
		one := &api.EmbeddingRequest{Model: "demo-embed", Prompt: "a"}
		equal(len(must(client.Embeddings(background, one)).Embedding), len(vectors[0]))
	})

	check("models", func() {
		no(client.Heartbeat(background))
		that(must(client.Version(background)) != "")
		listed := must(client.List(background)).Models
		that(len(listed) > 2)
		that(len(must(client.ListRunning(background)).Models) > 0)
		shown := must(client.Show(background, &api.ShowRequest{Model: "demo"}))
		equal(shown.Details.Family, "llama")

		var status string
		progress := func(part api.ProgressResponse) error { status = part.Status; return nil }
		no(client.Create(background, &api.CreateRequest{Model: "go-made", From: "demo"}, progress))
		equal(status, "success")
		no(client.Pull(background, &api.PullRequest{Model: "demo"}, progress))
		equal(status, "success")
		no(client.Copy(background, &api.CopyRequest{Source: "go-made", Destination: "go-copied"}))
		no(client.Delete(background, &api.DeleteRequest{Model: "go-made"}))
		no(client.Delete(background, &api.DeleteRequest{Model: "go-copied"}))

		blob := []byte("not a model")
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
		no(client.CreateBlob(background, digest, bytes.NewReader(blob)))
	})

	check("errors", func() {
		err := client.Chat(background, &api.ChatRequest{Model: "nobody", Messages: sky}, nil)
		var status api.StatusError
		that(errors.As(err, &status), err)
		equal(status.StatusCode, 404)
		equal(status.ErrorMessage, "model 'nobody' not found")
	})

	check("an account", func() {
		_, err := client.Whoami(background)
		var unauthorized api.AuthorizationError
		that(errors.As(err, &unauthorized), err)
		that(unauthorized.SigninURL != "")
		equal(must(client.CloudStatusExperimental(background)).Cloud.Source, "none")
	})

	check("the bytes of generate", func() {
		for _, more := range []string{
			``, `, "stream": false`, `, "think": true`, `, "logprobs": true, "top_logprobs": 3`,
			`, "logprobs": true, "think": true, "stream": false`, `, "options": {"num_predict": 2}`,
		} {
			same[api.GenerateResponse]("POST", "/api/generate",
				`{"model": "demo", "prompt": "Write a <b>haiku</b> & 你好"`+more+`}`)
		}
		same[api.GenerateResponse]("POST", "/api/generate", `{"model": "demo"}`)
		same[api.GenerateResponse]("POST", "/api/generate", `{"model": "refuses", "keep_alive": 0}`)
		same[api.GenerateResponse]("POST", "/api/generate",
			`{"model": "demo", "prompt": "x", "_debug_render_only": true}`)
	})

	check("the bytes of chat", func() {
		tools := string(must(json.Marshal(weather())))
		for _, more := range []string{
			`"demo"`, `"demo", "stream": false`, `"thinks", "think": true`, `"thinks", "stream": false`,
			`"two-calls", "tools": ` + tools, `"two-calls", "stream": false, "tools": ` + tools,
			`"thinks-and-calls", "tools": ` + tools, `"demo", "logprobs": true, "top_logprobs": 2`,
			`"demo", "format": "json", "options": {"num_predict": 9}`,
		} {
			same[api.ChatResponse]("POST", "/api/chat",
				`{"messages": [{"role": "user", "content": "Write a haiku"}], "model": `+more+`}`)
		}
		same[api.ChatResponse]("POST", "/api/chat", `{"model": "demo", "messages": []}`)
	})

	check("the bytes of embeddings", func() {
		same[api.EmbedResponse]("POST", "/api/embed", `{"model": "demo-embed", "input": ["a", "b"]}`)
		same[api.EmbedResponse]("POST", "/api/embed", `{"model": "demo-embed", "input": []}`)
		same[api.EmbeddingResponse]("POST", "/api/embeddings", `{"model": "demo-embed", "prompt": "a"}`)
	})

	check("the bytes of models", func() {
		same[api.ListResponse]("GET", "/api/tags", "")
		same[api.ProcessResponse]("GET", "/api/ps", "")
		same[api.ShowResponse]("POST", "/api/show", `{"model": "demo"}`)
		same[api.ShowResponse]("POST", "/api/show", `{"model": "story"}`)
		same[api.ProgressResponse]("POST", "/api/pull", `{"model": "demo"}`)
		same[api.ProgressResponse]("POST", "/api/create", `{"model": "go-bytes", "from": "demo"}`)
		no(client.Delete(background, &api.DeleteRequest{Model: "go-bytes"}))
	})

	check("an image", func() {
		pixel := must(base64.StdEncoding.DecodeString(
			"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"))
		seen := []api.Message{{Role: "user", Content: "What?", Images: []api.ImageData{pixel}}}
		options := map[string]any{"num_predict": 3}
		parts := chat(api.ChatRequest{Model: "sees", Messages: seen, Options: options})
		equal(parts[len(parts)-1].EvalCount, 3)
	})

	run()
}
