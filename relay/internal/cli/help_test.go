package cli

import (
	"testing"

	"github.com/azs-courier/azs-courier/shared/appkit"
)

// Every verb has a usage line, a description, a meaning for every flag, an example
// that parses and its exit codes: faults 9 and 10 of the official flow are commands
// in its documentation that do not run, or do not exist.
func TestHelp(t *testing.T) {
	for _, thin := range appkit.CheckHelp(program()) {
		t.Error(thin)
	}
}
