package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/cli"
)

// BenchmarkStartup measures what every line of a script pays: how long it takes
// from the start of a process to its end when it only prints its version. Each
// program takes turns with age (its path is in AZS_AGE), so that a busy machine
// slows both, and the ratio of the medians is what is told.
func BenchmarkStartup(b *testing.B) {
	age := os.Getenv("AZS_AGE")
	if age == "" {
		b.Skip("AZS_AGE names no age program to compare with: make bench sets it")
	}
	for _, name := range []string{"azs-agent", "azs-relay"} {
		b.Run(name, func(b *testing.B) {
			ours := built(b, name)
			run(b, ours, "version") // both are in the page cache from here on
			run(b, age, "--version")
			var mine, theirs []time.Duration
			for b.Loop() {
				mine = append(mine, run(b, ours, "version"))
				theirs = append(theirs, run(b, age, "--version"))
			}
			b.ReportMetric(0, "ns/op") // of both together: it says nothing
			b.ReportMetric(milliseconds(median(mine)), "ms")
			b.ReportMetric(milliseconds(median(theirs)), "age-ms")
			b.ReportMetric(float64(median(mine))/float64(median(theirs)), "ours/age")
		})
	}
}

// BenchmarkBinary tells the sizes of the programs, as the Makefile builds them.
func BenchmarkBinary(b *testing.B) {
	for _, name := range []string{"azs-agent", "azs-relay"} {
		b.Run(name, func(b *testing.B) {
			path := built(b, name)
			var size int64
			for b.Loop() {
				info, err := os.Stat(path)
				if err != nil {
					b.Fatal(err)
				}
				size = info.Size()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// officialCalls is how many calls the official cmdlets send at the least for a
// first registration and its key, whatever stands in Azure already: one for each
// cmdlet of the Az modules that RegisterWithAzure.psm1 runs (repository
// Azure/AzureStack-Tools, commit 99348c6, of the branch az).
//
//	Register-AzsEnvironment, and New-RegistrationResource once more:
//	  Get-AzLocation               GET    …/locations                        2
//	Register-AzureStackResourceProvider:
//	  Register-AzResourceProvider  POST   …/Microsoft.AzureStack/register    1
//	New-RegistrationResource:
//	  Get-AzResourceLock           GET    …/RegistrationResourceLock         1
//	  New-AzResourceGroup -Force   PUT    …/resourcegroups/GROUP             1
//	  New-AzResource -Force        PUT    …/registrations/NAME               1
//	  New-AzResourceLock -Force    PUT    …/RegistrationResourceLock         1
//	Get-AzsActivationKey:
//	  Invoke-AzResourceAction      POST   …/registrations/NAME/GetActivationKey  1
//
// What the Az modules ask besides (whether the group is there, for instance) is
// not counted, since it was not measured. Of these eight, five are writes in
// Resource Manager's count, which takes every POST for one.
const (
	officialCalls  = 8
	officialWrites = 5
)

// BenchmarkCalls counts the Resource Manager calls of a first registration in the
// log of the simulated Azure. The relay reads more than the official cmdlets do
// (subscription, provider, group, registrations, and the new one once more), and
// writes no more than is missing. Sign-in and the metadata of the endpoint are
// not among the calls.
func BenchmarkCalls(b *testing.B) {
	for _, place := range []struct {
		name    string
		options []azuretest.Option
	}{
		{"new-subscription", []azuretest.Option{azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered"})}},
		{"used-subscription", []azuretest.Option{azuretest.WithGroup(azuretest.Group{Name: "azurestack"})}},
	} {
		for _, verb := range []struct {
			name string
			args []string
		}{
			{"register", []string{"register"}},
			{"dry-run", []string{"register", "--dry-run"}},
		} {
			b.Run(verb.name+"/"+place.name, func(b *testing.B) {
				var reads, writes int
				for b.Loop() {
					reads, writes = calls(b, verb.args, place.options)
				}
				b.ReportMetric(0, "ns/op") // of a simulated Azure
				b.ReportMetric(float64(reads+writes), "calls")
				b.ReportMetric(float64(writes), "writes")
				if verb.name == "register" {
					b.ReportMetric(officialCalls, "official-calls")
					b.ReportMetric(officialWrites, "official-writes")
				}
			})
		}
	}
}

// calls runs a verb with a plain token against a new simulated Azure and counts
// what came there.
func calls(b *testing.B, verb []string, options []azuretest.Option) (reads, writes int) {
	srv := azuretest.NewServer(options...)
	defer srv.Close()
	var errs bytes.Buffer
	args := newRelay(b, srv)(verb...)
	if code := cli.Main(args, strings.NewReader(""), &bytes.Buffer{}, &errs); code != 0 {
		b.Fatalf("azs-relay %s: exit code %d: %s", strings.Join(args, " "), code, &errs)
	}
	for _, r := range srv.Requests() {
		switch {
		case !strings.HasPrefix(r.Path, "/subscriptions"):
		case r.Method == "GET":
			reads++
		default:
			writes++
		}
	}
	return reads, writes
}

// built returns the path of a program in bin/, or skips.
func built(b *testing.B, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		b.Skipf("%v: make build makes it", err)
	}
	return path
}

// run runs a program to its end and returns how long that took.
func run(b *testing.B, program string, args ...string) time.Duration {
	began := time.Now()
	out, err := exec.Command(program, args...).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		b.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
	return took
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
