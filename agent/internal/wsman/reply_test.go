package wsman

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func TestFaults(t *testing.T) {
	const head = `<s:Code><s:Value>s:`
	const ns = ` xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"`
	for _, tt := range []struct {
		name     string
		body     string
		want     Fault
		definite bool
		kind     fault.Kind
	}{
		{"timed out", faulty(CodeTimedOut, "TimedOut", "later "), Fault{Code: CodeTimedOut, Subcode: "TimedOut", Reason: "later", Message: "later"}, false, fault.Unexpected},
		{"gone", faulty(CodeInvalidSelectors, "InvalidSelectors", "x"), Fault{Code: CodeInvalidSelectors, Subcode: "InvalidSelectors", Reason: "x", Message: "x"}, true, fault.Unexpected},
		{"shells", faulty(CodeMaxShells, "QuotaLimit", "x"), Fault{Code: CodeMaxShells, Subcode: "QuotaLimit", Reason: "x", Message: "x"}, true, fault.Unreachable},
		{"operations", faulty(CodeMaxOperations, "QuotaLimit", "x"), Fault{Code: CodeMaxOperations, Subcode: "QuotaLimit", Reason: "x", Message: "x"}, true, fault.Unreachable},
		{"access", faulty(CodeAccessDenied, "AccessDenied", "x"), Fault{Code: CodeAccessDenied, Subcode: "AccessDenied", Reason: "x", Message: "x"}, true, fault.Permanent},
		{"configuration", faulty(CodeNoConfiguration, "DestinationUnreachable", "x"), Fault{Code: CodeNoConfiguration, Subcode: "DestinationUnreachable", Reason: "x", Message: "x"}, true, fault.Permanent},
		{"configuration too", faulty(CodeNoConfigurationToo, "DestinationUnreachable", "x"), Fault{Code: CodeNoConfigurationToo, Subcode: "DestinationUnreachable", Reason: "x", Message: "x"}, true, fault.Permanent},
		{"aborted", faulty(CodeAborted, "InternalError", "x"), Fault{Code: CodeAborted, Subcode: "InternalError", Reason: "x", Message: "x"}, false, fault.Unexpected},
		{"receiver", faulty(1, "InternalError", "x"), Fault{Code: 1, Subcode: "InternalError", Reason: "x", Message: "x"}, false, fault.Unexpected},
		{"sender, no detail", `<s:Fault>` + head + `Sender</s:Value><s:Subcode><s:Value>SchemaValidationError</s:Value></s:Subcode></s:Code><s:Reason><s:Text>bad</s:Text></s:Reason></s:Fault>`,
			Fault{Sender: true, Subcode: "SchemaValidationError", Reason: "bad"}, true, fault.Unexpected},
		{"sender that did not complete", `<s:Fault>` + head + `Sender</s:Value></s:Code><s:Detail><f:WSManFault` + ns + ` Code="2150859046"/></s:Detail></s:Fault>`,
			Fault{Sender: true, Code: CodeCannotComplete}, false, fault.Unexpected},
		{"text within a provider's fault", `<s:Fault>` + head + `Receiver</s:Value></s:Code><s:Detail><f:WSManFault` + ns + ` Code="7"><f:Message><f:ProviderFault provider="microsoft.powershell"><f:WSManFault Code="8"><f:Message>inner &lt;text&gt;</f:Message></f:WSManFault></f:ProviderFault></f:Message></f:WSManFault></s:Detail></s:Fault>`,
			Fault{Code: 7, Message: "inner <text>"}, false, fault.Unexpected},
		{"code no number", `<s:Fault><s:Detail><f:WSManFault` + ns + ` Code="0x5"/></s:Detail></s:Fault>`, Fault{}, false, fault.Unexpected},
		{"empty", `<s:Fault/>`, Fault{}, false, fault.Unexpected},
		{"long", `<s:Fault><s:Reason><s:Text>` + strings.Repeat("x", 1<<20) + `</s:Text></s:Reason></s:Fault>`, Fault{Reason: strings.Repeat("x", 2000)}, false, fault.Unexpected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parse(answered("uuid:x", tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if r.Body.Fault == nil {
				t.Fatal("no fault")
			}
			got := r.Body.Fault.read()
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Definite() != tt.definite || fault.KindOf(got.wrap()) != tt.kind {
				t.Errorf("definite %t kind %s, want %t %s", got.Definite(), fault.KindOf(got.wrap()), tt.definite, tt.kind)
			}
			var f *Fault
			if err := got.wrap(); !errors.As(err, &f) || f != got {
				t.Errorf("%v has lost the fault", err)
			}
			if tt.name == "timed out" != got.TimedOut() || tt.name == "gone" != got.Gone() {
				t.Errorf("timed out %t, gone %t", got.TimedOut(), got.Gone())
			}
		})
	}
}

// recorded returns the requests and replies of one recording of a real Windows.
func recorded(t *testing.T, file string) (requests, replies [][]byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:- |  )(request|response): (?:[|>][-+]? )?(["']?)(<(?:\w+:)?Envelope.*Envelope>)`).FindAllSubmatch(unfold(text), -1) {
		if string(m[2]) == `"` {
			m[3] = bytes.ReplaceAll(m[3], []byte(`\"`), []byte(`"`))
		}
		if string(m[1]) == "request" {
			requests = append(requests, m[3])
		} else {
			replies = append(replies, m[3])
		}
	}
	return requests, replies
}

// unfold undoes the line folding of YAML's scalars.
func unfold(text []byte) []byte {
	text = regexp.MustCompile(`\\\r?\n +\\?`).ReplaceAll(text, nil) // in double quotes
	return regexp.MustCompile(`(\r?\n)+ {4,}`).ReplaceAll(text, []byte(" "))
}

// Every reply that a real Windows gave is read, and every stream is a fragment.
func TestRecordedReplies(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/fixtures/psrp/*.yml")
	if len(files) == 0 {
		t.Skip("no recordings in ../shared/fixtures/psrp of the project's root")
	}
	replies, streams, faults := 0, 0, 0
	for _, file := range files {
		_, all := recorded(t, file)
		for _, data := range all {
			r, err := parse(data)
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
				continue
			}
			replies++
			if f := r.Body.Fault; f != nil {
				faults++
				if got := f.read(); got.Code == 0 || got.TimedOut() != (got.Code == CodeTimedOut) {
					t.Errorf("%s: %v", filepath.Base(file), got)
				}
			} else if r.Header.RelatesTo == "" {
				t.Errorf("%s: a reply relates to nothing", filepath.Base(file))
			}
			if r.Body.Received != nil {
				id := ""
				for _, s := range r.Body.Received.Streams {
					id = s.CommandID
				}
				out, _, err := r.received(id)
				if err != nil {
					t.Errorf("%s: %v", filepath.Base(file), err)
				}
				for _, f := range out {
					if len(f) < 21 {
						t.Errorf("%s: a stream of %d bytes", filepath.Base(file), len(f))
					}
				}
				streams += len(out)
			}
		}
	}
	t.Logf("%d replies, %d streams, %d faults in %d recordings", replies, streams, faults, len(files))
	if streams == 0 {
		t.Error("nothing was looked at")
	}
}

// shape lists the elements and attributes of an envelope's header, without the
// values and in one order.
func shape(t *testing.T, data []byte) (action string, lines []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(data))
	var path []string
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch e := token.(type) {
		case xml.StartElement:
			path = append(path, e.Name.Space+" "+e.Name.Local)
			line := strings.Join(path[1:], " / ")
			slices.SortFunc(e.Attr, func(a, b xml.Attr) int { return strings.Compare(a.Name.Local, b.Name.Local) })
			for _, a := range e.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					value := a.Value
					if strings.HasSuffix(a.Name.Local, "Id") {
						value = "…"
					}
					line += " " + a.Name.Space + ":" + a.Name.Local + "=" + value
				}
			}
			if len(path) > 1 {
				lines = append(lines, line)
			}
		case xml.CharData:
			if len(path) > 0 && strings.HasSuffix(path[len(path)-1], " Action") {
				action += string(e)
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
	slices.Sort(lines)
	return action, slices.Compact(lines)
}

// Our requests have the elements and attributes of those that a real Windows
// accepted.
func TestRequestsAreShapedAsRecorded(t *testing.T) {
	file := "../../../../shared/fixtures/psrp/test_psrp_with_jea_configuration.yml"
	if _, err := os.Stat(file); err != nil {
		t.Skip("no recordings in ../shared/fixtures/psrp of the project's root")
	}
	want := map[string][]string{}
	requests, _ := recorded(t, file)
	for _, r := range requests {
		action, lines := shape(t, r)
		if _, ok := want[action]; !ok || action == actionReceive { // the later ones are of a command
			want[action] = lines
		}
	}
	e := envelope{to: "http://x", sessionID: "uuid:x", timeout: "PT60S", maxEnvelope: 1}
	for _, req := range recordedLike(t) {
		action, got := shape(t, e.marshal(req))
		// The recording leaves the idle time to the server.
		got = slices.DeleteFunc(got, func(line string) bool { return strings.HasSuffix(line, " IdleTimeOut") })
		if diff := cmp.Diff(want[action], got); diff != "" {
			t.Errorf("%s (-recorded +ours):\n%s", action, diff)
		}
		delete(want, action)
	}
	for action := range want {
		t.Errorf("%s was not compared", action)
	}
}

// recordedLike makes the requests of the recording by the shell's own code.
func recordedLike(t *testing.T) []request {
	e := start(t, nil, nil)
	e.create(t)
	ctx := within(t)
	if err := e.shell.Command(ctx, commandID, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.shell.Receive(ctx, commandID); err != nil {
		t.Fatal(err)
	}
	if err := e.shell.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	var out []request
	for _, s := range e.got {
		r := request{action: s.Header.Action, messageID: s.Header.MessageID, body: s.Body.Inner}
		if len(s.Header.Selectors) > 0 {
			r.shellID = s.Header.Selectors[0]
		}
		for _, o := range s.Header.Options {
			r.options = append(r.options, option{o.Name, o.Value, o.MustComply == "true"})
		}
		out = append(out, r)
	}
	return out
}

func seeds(f *testing.F) {
	var receive sent
	receive.Header.Action = actionReceive
	f.Add(answered("uuid:x", honest(receive)))
	receive.Header.Action = actionCreate
	f.Add(answered("uuid:x", honest(receive)))
	f.Add(answered("uuid:x", faulty(CodeTimedOut, "TimedOut", "x")))
	f.Add([]byte(`<?xml version="1.0"?><!DOCTYPE x><s:Envelope/>`))
}

// Whatever a reply says, reading it returns; what it gives is within its size.
func FuzzReply(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil || r.Body.Received == nil {
			return
		}
		out, _, err := r.received(commandID)
		if err != nil {
			return
		}
		size := 0
		for _, b := range out {
			size += base64.StdEncoding.EncodedLen(len(b))
		}
		if size > len(data) {
			t.Fatalf("%d bytes out of %d", size, len(data))
		}
	})
}

// Whatever a fault says, it becomes one bounded line.
func FuzzFault(f *testing.F) {
	seeds(f)
	f.Add([]byte(`<s:Envelope xmlns:s="` + nsSOAP + `"><s:Body><s:Fault><s:Reason><s:Text>` + "a\nb\u202e" + `</s:Text></s:Reason></s:Fault></s:Body></s:Envelope>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil || r.Body.Fault == nil {
			return
		}
		fault := r.Body.Fault.read()
		text := fault.wrap().Error()
		if strings.ContainsAny(text, "\n\r\x1b") || len(text) > 30000 {
			t.Fatalf("%q", text)
		}
		if fault.TimedOut() && fault.Definite() {
			t.Fatal("a timeout is no definite refusal")
		}
	})
}

// Sessions of other clients are lived through once more, over sealing and all: to
// each request the endpoint gives what a real Windows replied to the first one of
// that action and command. Only ids are put in place. Whatever a command came to,
// its end is seen and the shell is deleted.
func TestReplayedSessions(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/fixtures/psrp/*.yml")
	if len(files) == 0 {
		t.Skip("no recordings in ../shared/fixtures/psrp of the project's root")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yml"), func(t *testing.T) {
			requests, replies := recorded(t, file)
			if len(requests) != len(replies) {
				t.Skipf("the recording has %d requests and %d replies", len(requests), len(replies))
			}
			var asked []sent
			for _, r := range requests {
				var s sent
				if err := xml.Unmarshal(r, &s); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains([]string{"Create", "Receive", "Command", "Send", "Signal", "Delete", "Get"}, s.action()) ||
					s.action() == "Create" && !strings.Contains(s.Body.Inner, "creationXml") {
					t.Skipf("the recording has a %s of another kind than ours", s.action())
				}
				asked = append(asked, s)
			}
			theirs := map[string]string{} // ids of commands by ours
			e := start(t, nil, func(_ int, got sent) (int, []byte) {
				command := got.command()
				for i, r := range asked {
					switch {
					case r.action() != got.action(), r.action() == "Receive" && r.command() != theirs[command]:
						continue
					case r.action() == "Command":
						theirs[command] = r.command()
					}
					text := regexp.MustCompile(`RelatesTo>[^<]*<`).ReplaceAll(replies[i], []byte("RelatesTo>"+got.Header.MessageID+"<"))
					if id := theirs[command]; id != "" {
						text = regexp.MustCompile("(?i)"+id).ReplaceAll(text, []byte(command))
					}
					asked, replies = slices.Delete(asked, i, i+1), slices.Delete(replies, i, i+1)
					return 200, text // also what is a fault: it is its body that says so
				}
				if got.action() != "Signal" { // which the other client does not send
					t.Errorf("no %s of %q is left in the recording", got.action(), theirs[command])
				}
				return 0, nil
			})
			pool, err := psrp.NewPool(e.shell, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if err := pool.Open(within(t)); err != nil {
				t.Fatal(err)
			}
			commands := 0
			for slices.ContainsFunc(asked, func(s sent) bool { return s.action() == "Command" }) {
				out, err := pool.Run(within(t), psrp.Command{Name: "Recorded-Command"}, psrp.Handlers{})
				var remote *psrp.RemoteError
				if err != nil && !errors.As(err, &remote) {
					t.Fatal(err)
				}
				commands++
				t.Logf("%d values, error %v", len(out), err)
			}
			if err := pool.Close(within(t)); err != nil {
				t.Error(err)
			}
			for _, s := range asked {
				if s.action() == "Receive" || s.action() == "Delete" {
					t.Errorf("a %s was not asked for", s.action())
				}
			}
			// The budget: what the other client needed, and a Signal for each command.
			if n := len(e.requests()); n > len(requests)+commands {
				t.Errorf("%d round trips, %d were recorded for %d commands", n, len(requests), commands)
			} else {
				t.Logf("%d commands, %d round trips, %d recorded", commands, n, len(requests))
			}
		})
	}
}

var namedCommand = regexp.MustCompile(`CommandId="([^"]*)"`)

// command is the id of the command that a request is about.
func (s sent) command() string {
	if m := namedCommand.FindStringSubmatch(s.Body.Inner); m != nil {
		return strings.ToUpper(m[1])
	}
	return ""
}
