// Command azs-relay runs on an internet host: it registers the token that a
// request carries with Azure Resource Manager and seals the activation key.
package main

import (
	"os"

	"github.com/azs-courier/azs-courier/relay/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
