package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// ctlCommand is the remote control, so that scripts need no curl. Every verb
// takes --control: the URL of the serving line, or a file that holds the line.
func ctlCommand() *cli.Command {
	control := &cli.StringFlag{Name: "control", Required: true, EnvVars: []string{"PEPTEST_CONTROL"},
		Usage: "control `URL` of a serving peptest, or the file that its line was written to"}
	action := &cli.StringFlag{Name: "action", Usage: "`ACTION`: Probe, Negotiate, Authenticate, Create, Receive, Command, Send, Signal, Delete, Disconnect, Reconnect, Connect; any without it"}
	plain := func(name, usage, method, path string) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Flags: []cli.Flag{control}, Action: func(c *cli.Context) error {
			return ask(c, method, path, nil)
		}}
	}
	return &cli.Command{
		Name:  "ctl",
		Usage: "drive a serving peptest: faults, log, state",
		Subcommands: []*cli.Command{
			{
				Name:      "fail",
				Usage:     "add a fault",
				ArgsUsage: "KIND",
				Description: "KIND is one of:\n" + kinds() + ". Examples:\n\n" +
					"peptest ctl fail --action Receive --skip 3 --times 1 drop-after\n" +
					"peptest ctl fail --cmdlet New-RegistrationToken --text 'Cannot connect to `HOST01` to get hardware info' terminating\n" +
					"peptest ctl fail --address 1 refused",
				Flags: []cli.Flag{control, action,
					&cli.IntFlag{Name: "address", Usage: "`NUMBER` of the address, from 1; every one without it"},
					&cli.StringFlag{Name: "cmdlet", Usage: "`NAME` of the cmdlet that is struck; any without it"},
					&cli.IntFlag{Name: "skip", Usage: "how many that match pass first"},
					&cli.IntFlag{Name: "times", Usage: "how many are struck; 0 is every one until 'ctl clear'"},
					&cli.UintFlag{Name: "code", Usage: "`CODE` of a wsman-fault"},
					&cli.StringFlag{Name: "text", Usage: "`TEXT` of the error"},
				},
				Action: ctlFail,
			},
			plain("clear", "remove every fault and let held cmdlets go on", http.MethodDelete, "/faults"),
			plain("release", "let held cmdlets go on", http.MethodPost, "/release"),
			plain("finish", "end the time that an activation or its removal takes", http.MethodPost, "/finish"),
			plain("log", "print the exchanges so far as JSON", http.MethodGet, "/log"),
			plain("state", "print the stamp's state as JSON", http.MethodGet, "/state"),
			{
				Name:  "wait",
				Usage: "wait until exchanges were answered or dropped",
				Flags: []cli.Flag{control, action,
					&cli.IntFlag{Name: "count", Value: 1, Usage: "how many"},
					&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long at most"}},
				Action: ctlWait,
			},
		},
	}
}

// kinds are the kinds of faults, in lines.
func kinds() string {
	var b strings.Builder
	line := 0
	for _, k := range peptest.Kinds() {
		if line+len(k) > 90 {
			b.WriteByte('\n')
			line = 0
		} else if line > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(k))
		line += len(k) + 1
	}
	return b.String()
}

func ctlFail(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "ctl fail takes one KIND after its flags, not %d words", c.NArg()).Hint("peptest ctl fail --help")
	}
	f := peptest.Fault{Kind: peptest.Kind(c.Args().First()), Address: c.Int("address"), Action: c.String("action"), Cmdlet: c.String("cmdlet"),
		After: c.Int("skip"), Times: c.Int("times"), Code: uint32(c.Uint("code")), Text: c.String("text")}
	if err := f.Valid(); err != nil {
		return fault.New(fault.Usage, "%w", err).Hint("peptest ctl fail --help")
	}
	return ask(c, http.MethodPost, "/faults", f)
}

func ctlWait(c *cli.Context) error {
	q := url.Values{"action": {c.String("action")}, "count": {strconv.Itoa(c.Int("count"))}, "timeout": {c.Duration("timeout").String()}}
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
		return nil, fault.New(fault.Unreachable, "no peptest at %s: %w", base, err)
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
	var line endpoint
	if err := json.Unmarshal(raw, &line); err != nil || line.Control == "" {
		return "", fault.New(fault.Refused, "--control: %q is not a URL and its file holds no line of peptest", s)
	}
	return line.Control, nil
}
