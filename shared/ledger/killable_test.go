//go:build faultinject

package ledger

const killable = true
