package main_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/rogpeppe/go-internal/testscript"
)

// recipe does what a page of evidence tells an officer to do, in a copy of the
// state folder, with sh and ssh-keygen: every digest that the page names comes
// out, and N signatures are good.
//
//	recipe HOME PROGRAM TRIP N
func recipe(ts *testscript.TestScript, args []string) {
	need(ts, args, 4, "recipe HOME PROGRAM TRIP N")
	if code := run(ts, args[1], "evidence", args[2], "--json"); code != 0 {
		ts.Fatalf("exit code %d", code)
	}
	var ev struct {
		AllowedSigners string
		Check          []struct{ Command string }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &ev))
	dir := ts.MkAbs("officer-" + args[1])
	ts.Check(os.CopyFS(dir, os.DirFS(ts.MkAbs(args[0]))))
	ts.Check(os.WriteFile(filepath.Join(dir, "allowed_signers"), []byte(ev.AllowedSigners), 0o600))
	good := 0
	for _, step := range ev.Check {
		if step.Command+"\n" == ev.AllowedSigners {
			continue
		}
		cmd := exec.Command("sh", "-ec", step.Command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			ts.Fatalf("%s\n%v: %s", step.Command, err, out)
		}
		for _, want := range regexp.MustCompile(`(?m)^# (.*)$`).FindAllStringSubmatch(step.Command, -1) {
			if !strings.Contains(string(out), want[1]) {
				ts.Fatalf("%s\ngives\n%s", step.Command, out)
			}
		}
		good += strings.Count(string(out), `Good "azs-courier@v1" signature`)
	}
	if strconv.Itoa(good) != args[3] {
		ts.Fatalf("%d good signatures, want %s", good, args[3])
	}
}

// printed opens a page in Chromium, on a screen and on a telephone, and prints it
// on A4: nothing is asked for but the page, the policy has nothing to complain
// of, nothing is wider than screen or paper, and each word is on paper.
//
//	printed FILE LEAST MOST WORD…
func printed(ts *testscript.TestScript, args []string) {
	need(ts, args, 3, "printed FILE LEAST MOST WORD…")
	t := ts.Value(testKey{}).(testing.TB)
	file := ts.MkAbs(args[0])
	address := (&url.URL{Scheme: "file", Path: file}).String()
	tab := newBrowser(t, "")
	seen := listen(t, tab)
	for _, width := range []int64{1280, 360} {
		if _, err := chromedp.Call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1}); err != nil {
			ts.Fatalf("%v", err)
		}
		if _, err := chromedp.Run(tab, chromedp.Navigate(address)); err != nil {
			ts.Fatalf("%v", err)
		}
		wide, err := chromedp.Run(tab, chromedp.Evaluate[int64]("document.documentElement.scrollWidth"))
		if err != nil || wide > width {
			ts.Fatalf("the page is %d px wide on a screen of %d (%v)", wide, width, err)
		}
	}
	style, err := chromedp.Run(tab, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("pre, dl")).marginBottom + document.scripts.length`))
	if err != nil || style != "0px0" {
		ts.Fatalf("the style sheet is not in force, or there is a script: %q (%v)", style, err)
	}
	sheet := page.PrintToPDFParams{PreferCSSPageSize: new(bool), PrintBackground: new(bool)}
	*sheet.PreferCSSPageSize, *sheet.PrintBackground = true, true
	printed, err := chromedp.Call(tab, page.PrintToPDF, sheet)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	pdf := printed.Data
	seen.mu.Lock()
	asked := slices.Compact(slices.Clone(seen.asked))
	complaints := seen.complaints
	seen.mu.Unlock()
	if !slices.Equal(asked, []string{address}) || len(complaints) > 0 {
		ts.Fatalf("asked for %q, complaints %q", asked, complaints)
	}
	ts.Check(os.WriteFile(file+".pdf", pdf, 0o600))
	tool, err := exec.LookPath("pdftotext")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_POPPLER") == "1" {
			ts.Fatalf("%v", err)
		}
		t.Skipf("pdftotext is missing: %v", err)
	}
	out, err := exec.Command(tool, "-bbox", file+".pdf", "-").Output()
	if err != nil {
		ts.Fatalf("pdftotext: %v", err)
	}
	var doc struct {
		Pages []struct {
			Width  float64 `xml:"width,attr"`
			Height float64 `xml:"height,attr"`
			Words  []struct {
				Right float64 `xml:"xMax,attr"`
				Text  string  `xml:",chardata"`
			} `xml:"word"`
		} `xml:"body>doc>page"`
	}
	if err := xml.Unmarshal(out, &doc); err != nil {
		ts.Fatalf("pdftotext: %v", err)
	}
	var text strings.Builder
	for n, p := range doc.Pages {
		if size := fmt.Sprintf("%.0f x %.0f", p.Width, p.Height); size != "595 x 842" {
			ts.Fatalf("sheet %d is %s points, A4 is 595 x 842", n+1, size)
		}
		for _, w := range p.Words {
			if w.Right > p.Width-40 { // of a margin of 15 mm, 42.5 points
				ts.Fatalf("sheet %d: %q ends at %.1f of %.1f points", n+1, w.Text, w.Right, p.Width)
			}
			text.WriteString(w.Text)
		}
	}
	least, err := strconv.Atoi(args[1])
	ts.Check(err)
	most, err := strconv.Atoi(args[2])
	ts.Check(err)
	if n := len(doc.Pages); n < least || n > most {
		ts.Fatalf("%d sheets, want %d to %d", n, least, most)
	}
	for _, word := range args[3:] {
		if !strings.Contains(text.String(), strings.ReplaceAll(word, " ", "")) {
			ts.Fatalf("%q is not on paper", word)
		}
	}
}
