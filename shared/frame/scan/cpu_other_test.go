//go:build !unix

package scan

import "time"

var began = time.Now()

// processorTime is the wall's time where the processor's is not to be had.
func processorTime() time.Duration { return time.Since(began) }
