package main

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// opening is how a channel is opened.
type opening struct {
	Target          string
	Config          *string
	IdleSeconds     *float64 `json:"idle_seconds"`
	FallbackSeconds *float64 `json:"fallback_seconds"`
	CA              *string
	Options         [][2]any
}

// calls are calls one after the other.
type calls struct {
	Count        int
	Timeout      float64
	WaitForReady bool `json:"wait_for_ready"`
	Every        float64
	Name         string
	Details      bool
	Headers      map[string]string
}

// report is what came of calls.
type report struct {
	Answers map[string]int `json:"answers"`
	Errors  map[string]int `json:"errors"`
	Calls   []detail       `json:"calls,omitempty"`
}

// detail is what came of one call.
type detail struct {
	Answer   string            `json:"answer,omitempty"`
	Error    string            `json:"error,omitempty"`
	Metadata map[string]string `json:"metadata"`
}

// channel has connections of its own, as every grpc.ClientConn.
type channel struct {
	conn *grpc.ClientConn
	// Of the calls that start began; nil while there are none.
	stopping chan struct{}
	stopped  chan *report
}

func open(opening *opening) (*channel, error) {
	if opening.FallbackSeconds != nil {
		return nil, errors.New("unsupported: fallback_seconds: grpc-go's 10 seconds are fixed")
	}
	if len(opening.Options) > 0 {
		return nil, errors.New("unsupported: options: grpc-go has no channel arguments")
	}
	security, err := security(opening.CA)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{security}
	if opening.Config != nil {
		// A config found in DNS would win over this one.
		options = append(options,
			grpc.WithDefaultServiceConfig(*opening.Config), grpc.WithDisableServiceConfig())
	}
	if opening.IdleSeconds != nil {
		idle, err := idleTimeout(seconds(*opening.IdleSeconds))
		if err != nil {
			return nil, err
		}
		options = append(options, idle)
	}
	conn, err := dial(opening.Target, options)
	if err != nil {
		return nil, err
	}
	return &channel{conn: conn}, nil
}

// call makes calls one after the other: count times, or until stop is closed.
func (c *channel) call(calls *calls, count int, stop <-chan struct{}) *report {
	report := &report{Answers: map[string]int{}, Errors: map[string]int{}}
	for made := 0; made != count; made++ {
		if made > 0 && calls.Every > 0 {
			select {
			case <-stop:
			case <-time.After(seconds(calls.Every)):
			}
		}
		select {
		case <-stop:
			return report
		default:
			c.callOnce(calls, report)
		}
	}
	return report
}

// callOnce asks for a greeting. HelloRequest and HelloReply are each one string
// in field 1, and so is StringValue: no generated code is needed.
func (c *channel) callOnce(calls *calls, report *report) {
	ctx, cancel := context.WithTimeout(context.Background(), seconds(calls.Timeout))
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(calls.Headers))
	var head, tail metadata.MD
	answer := new(wrapperspb.StringValue)
	err := c.conn.Invoke(ctx, "/helloworld.Greeter/SayHello", wrapperspb.String(calls.Name), answer,
		grpc.WaitForReady(calls.WaitForReady), grpc.Header(&head), grpc.Trailer(&tail))
	detail := detail{Answer: answer.GetValue(), Metadata: map[string]string{}}
	if err != nil {
		status := status.Convert(err)
		detail.Answer, detail.Error = "", canonical(status.Code().String())+": "+status.Message()
		report.Errors[detail.Error]++
	} else {
		report.Answers[detail.Answer]++
	}
	if !calls.Details {
		return
	}
	for key, values := range metadata.Join(head, tail) {
		if !strings.HasSuffix(key, "-bin") {
			detail.Metadata[key] = values[len(values)-1]
		}
	}
	report.Calls = append(report.Calls, detail)
}

func (c *channel) start(calls calls) error {
	if c.stopping != nil {
		return errors.New("it is calling already")
	}
	stopping, stopped := make(chan struct{}), make(chan *report, 1)
	c.stopping, c.stopped = stopping, stopped
	go func() { stopped <- c.call(&calls, -1, stopping) }()
	return nil
}

func (c *channel) stop() (*report, error) {
	if c.stopping == nil {
		return nil, errors.New("it is not calling")
	}
	close(c.stopping)
	c.stopping = nil
	return <-c.stopped, nil
}

func (c *channel) close() error {
	if c.stopping != nil {
		close(c.stopping)
	}
	return c.conn.Close()
}

// canonical is a code's name as gRPC writes it: DeadlineExceeded becomes
// DEADLINE_EXCEEDED.
func canonical(name string) string {
	if name == "OK" {
		return name
	}
	var words strings.Builder
	for i, letter := range name {
		if i > 0 && unicode.IsUpper(letter) {
			words.WriteByte('_')
		}
		words.WriteRune(unicode.ToUpper(letter))
	}
	// Go spells it with one l.
	return strings.Replace(words.String(), "CANCELED", "CANCELLED", 1)
}

func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}
