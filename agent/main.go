// Command azs-agent runs inside a disconnected Azure Stack Hub site: it seals the
// registration token for the relay and uses the answer once.
package main

import (
	"os"

	"github.com/azs-courier/azs-courier/agent/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
