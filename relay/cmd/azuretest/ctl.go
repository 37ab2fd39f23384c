package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// ctlCommand is the remote control, so that scripts need no curl. Every verb
// takes --control: the URL of the serving line, or a file that holds the line.
func ctlCommand() *cli.Command {
	control := &cli.StringFlag{Name: "control", Required: true, EnvVars: []string{"AZURETEST_CONTROL"},
		Usage: "control `URL` of a serving azuretest, or the file that its line was written to"}
	method := &cli.StringFlag{Name: "method", Usage: "HTTP `METHOD`; any without it"}
	path := &cli.StringFlag{Name: "path", Usage: "`PATTERN` of the whole path, * is any run of characters, letters match without case; any without it"}
	return &cli.Command{
		Name:  "ctl",
		Usage: "drive a serving azuretest: faults, log, state",
		Subcommands: []*cli.Command{
			{
				Name:  "fail",
				Usage: "add a fault",
				Description: "The first fault that was added and matches a request strikes it. Examples:\n\n" +
					"azuretest ctl fail --method PUT --path '*/locks/*' --code AuthorizationFailed\n" +
					"azuretest ctl fail --method PUT --path '*/registrations/r1' --drop after --times 1\n" +
					"azuretest ctl fail --method PUT --path '*/locks/*' --hold before --times 1",
				Flags: []cli.Flag{control, method, path,
					&cli.IntFlag{Name: "skip", Usage: "how many matching requests pass first"},
					&cli.IntFlag{Name: "times", Usage: "how many requests are struck; 0 is every one until 'ctl clear'"},
					&cli.IntFlag{Name: "status", Usage: "HTTP status of the answer; a documented --code brings its own"},
					&cli.StringFlag{Name: "code", Usage: "error `CODE` of the answer"},
					&cli.StringFlag{Name: "message", Usage: "error `TEXT` of the answer; a documented --code brings its own"},
					&cli.StringSliceFlag{Name: "header", Usage: "`NAME:VALUE` of the answer, repeatable (for example Retry-After:17)"},
					&cli.BoolFlag{Name: "acted", Usage: "answer the error although the call acted"},
					&cli.StringFlag{Name: "drop", Usage: "close the connection `before|after` the call acted"},
					&cli.StringFlag{Name: "hold", Usage: "do not answer until 'ctl release', `before|after` the call acted"},
				},
				Action: ctlFail,
			},
			{Name: "clear", Usage: "remove every fault", Flags: []cli.Flag{control}, Action: func(c *cli.Context) error {
				return ask(c, http.MethodDelete, "/faults", nil)
			}},
			{Name: "release", Usage: "let held calls go on", Flags: []cli.Flag{control}, Action: func(c *cli.Context) error {
				return ask(c, http.MethodPost, "/release", nil)
			}},
			{Name: "log", Usage: "print the requests so far as JSON, or one line each with --lines", Flags: []cli.Flag{control,
				&cli.BoolFlag{Name: "lines", Usage: "METHOD PATH STATUS, one request a line"}}, Action: ctlLog},
			{Name: "state", Usage: "print what the server holds as JSON", Flags: []cli.Flag{control}, Action: func(c *cli.Context) error {
				return ask(c, http.MethodGet, "/state", nil)
			}},
			{Name: "clock", Usage: "move the server's clock forward", Flags: []cli.Flag{control,
				&cli.DurationFlag{Name: "advance", Required: true, Usage: "by how much"}}, Action: func(c *cli.Context) error {
				return ask(c, http.MethodPost, "/clock", map[string]string{"advance": c.Duration("advance").String()})
			}},
			{
				Name:  "wait",
				Usage: "wait until requests were answered, dropped or held",
				Flags: []cli.Flag{control, method, path,
					&cli.IntFlag{Name: "count", Value: 1, Usage: "how many"},
					&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long at most"}},
				Action: ctlWait,
			},
		},
	}
}

func ctlFail(c *cli.Context) error {
	f := azuretest.Fault{Method: c.String("method"), Path: c.String("path"), After: c.Int("skip"), Times: c.Int("times"),
		Status: c.Int("status"), Code: c.String("code"), Message: c.String("message"), Acted: c.Bool("acted"),
		Drop: azuretest.When(c.String("drop")), Hold: azuretest.When(c.String("hold"))}
	for _, h := range c.StringSlice("header") {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fault.New(fault.Usage, "--header %q is not NAME:VALUE", h)
		}
		if f.Header == nil {
			f.Header = map[string]string{}
		}
		f.Header[name] = strings.TrimSpace(value)
	}
	if err := f.Valid(); err != nil {
		return fault.New(fault.Usage, "%w", err).Hint("azuretest ctl fail --help")
	}
	return ask(c, http.MethodPost, "/faults", f)
}

func ctlLog(c *cli.Context) error {
	if !c.Bool("lines") {
		return ask(c, http.MethodGet, "/log", nil)
	}
	raw, err := request(c, http.MethodGet, "/log", nil)
	if err != nil {
		return err
	}
	var all []azuretest.Request
	if err := json.Unmarshal(raw, &all); err != nil {
		return fault.New(fault.Refused, "the log: %w", err)
	}
	for _, r := range all {
		fmt.Fprintln(c.App.Writer, r.Method, r.Path, r.Status)
	}
	return nil
}

func ctlWait(c *cli.Context) error {
	q := url.Values{"method": {c.String("method")}, "path": {c.String("path")}, "count": {strconv.Itoa(c.Int("count"))}, "timeout": {c.Duration("timeout").String()}}
	_, err := request(c, http.MethodGet, "/wait?"+q.Encode(), nil)
	return err
}

// ask sends one request to the control and prints the answer.
func ask(c *cli.Context, method, path string, body any) error {
	out, err := request(c, method, path, body)
	if err == nil {
		_, err = c.App.Writer.Write(out)
	}
	return err
}

func request(c *cli.Context, method, path string, body any) ([]byte, error) {
	base, err := controlURL(c.String("control"))
	if err != nil {
		return nil, err
	}
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout")+30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, in)
	if err != nil {
		return nil, fault.New(fault.Usage, "--control: %w", err)
	}
	direct := &http.Transport{} // loopback needs no proxy
	defer direct.CloseIdleConnections()
	res, err := (&http.Client{Transport: direct}).Do(req)
	if err != nil {
		return nil, fault.New(fault.Unreachable, "no azuretest at %s: %w", base, err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, fault.New(fault.Unreachable, "the control's answer: %w", err)
	case res.StatusCode == http.StatusRequestTimeout:
		return nil, fault.New(fault.NothingYet, "%s", bytes.TrimSpace(out))
	case res.StatusCode >= 300:
		return nil, fault.New(fault.Permanent, "the control answered %s: %s", res.Status, bytes.TrimSpace(out))
	}
	return out, nil
}

// controlURL takes a URL, or reads it from the file of the serving line.
func controlURL(s string) (string, error) {
	if strings.HasPrefix(s, "http://") {
		return strings.TrimRight(s, "/"), nil
	}
	raw, err := os.ReadFile(s)
	if err != nil {
		return "", fault.New(fault.Medium, "--control: %w", err)
	}
	var line endpoints
	if err := json.Unmarshal(raw, &line); err != nil || line.Control == "" {
		return "", fault.New(fault.Refused, "--control: %q is not a URL and its file holds no line of azuretest", s)
	}
	return line.Control, nil
}
