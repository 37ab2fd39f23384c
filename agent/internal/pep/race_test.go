//go:build race

package pep

// The race detector takes memory of its own, many times that of the program.
func init() { raceDetector = true }
