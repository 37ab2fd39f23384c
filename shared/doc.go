// Package shared is the map of the packages that both programs stand on.
package shared
