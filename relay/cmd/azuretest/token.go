package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// encodings are the ways in which PowerShell leaves a text file behind. The
// first is what Out-File of Windows PowerShell 5.1, and so the official cmdlet,
// writes.
var encodings = []string{"utf-16le", "utf-16le-nobom", "utf-16be", "utf-16be-nobom", "utf-8", "utf-8-bom"}

// tokenCommand writes a modelled registration token as the official
// Get-AzsRegistrationToken would.
func tokenCommand() *cli.Command {
	return &cli.Command{
		Name:  "token",
		Usage: "write a modelled registration token file as the official cmdlet does",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Required: true, Usage: "token `FILE`, - for stdout"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "the same seed gives the same stamp"},
			&cli.IntFlag{Name: "nodes", Value: 4, Usage: "hosts of the stamp, 1 to 16"},
			&cli.StringFlag{Name: "server", Value: "typical", Usage: "parts of a host: typical or large"},
			&cli.StringFlag{Name: "cloud-id", Usage: "cloud `ID` of the stamp (default: from the seed)"},
			&cli.StringFlag{Name: "billing-model", Value: "Capacity", Usage: "Capacity, Custom or Development"},
			&cli.StringFlag{Name: "agreement-number", Usage: "enterprise agreement `NUMBER` (default under Capacity: from the seed)"},
			&cli.BoolFlag{Name: "usage-reporting", Usage: "the stamp reports its usage"},
			&cli.StringFlag{Name: "encoding", Value: encodings[0], Usage: strings.Join(encodings, ", ")},
			&cli.IntFlag{Name: "wrap", Usage: "break the line after so many characters, as a mail or an editor does"},
		},
		Action: func(c *cli.Context) error {
			servers := map[string]officialtest.Server{"typical": officialtest.Typical, "large": officialtest.Large}
			server, ok := servers[c.String("server")]
			if !ok {
				return fault.New(fault.Usage, "--server %q is neither typical nor large", c.String("server"))
			}
			if n := c.Int("nodes"); n < 1 || n > 16 {
				return fault.New(fault.Usage, "--nodes %d is not from 1 to 16", n)
			}
			raw, err := encodeText(officialtest.Token(officialtest.Spec{Seed: c.Uint64("seed"), Nodes: c.Int("nodes"), Server: server,
				CloudID: c.String("cloud-id"), BillingModel: c.String("billing-model"), AgreementNumber: c.String("agreement-number"),
				UsageReporting: c.Bool("usage-reporting")}), c.String("encoding"), c.Int("wrap"))
			if err != nil {
				return err
			}
			if c.String("out") == "-" {
				_, err = c.App.Writer.Write(raw)
				return err
			}
			if err := os.WriteFile(c.String("out"), raw, 0o600); err != nil {
				return fault.New(fault.Medium, "write the token: %w", err)
			}
			return nil
		},
	}
}

// encodeText gives the bytes of a text file of one line, or of lines of wrap
// characters, each ended by CR LF.
func encodeText(text, encoding string, wrap int) ([]byte, error) {
	if !slices.Contains(encodings, encoding) {
		return nil, fault.New(fault.Usage, "--encoding %q is not one of %s", encoding, strings.Join(encodings, ", "))
	}
	var lines strings.Builder
	for wrap > 0 && len(text) > wrap {
		fmt.Fprintf(&lines, "%s\r\n", text[:wrap])
		text = text[wrap:]
	}
	fmt.Fprintf(&lines, "%s\r\n", text)
	const bom = "\ufeff"
	name, plain := strings.CutSuffix(encoding, "-nobom")
	switch text := lines.String(); name {
	case "utf-8":
		return []byte(text), nil
	case "utf-8-bom":
		return []byte(bom + text), nil
	default:
		if !plain {
			text = bom + text
		}
		var order binary.AppendByteOrder = binary.LittleEndian
		if name == "utf-16be" {
			order = binary.BigEndian
		}
		var out []byte
		for _, u := range utf16.Encode([]rune(text)) {
			out = order.AppendUint16(out, u)
		}
		return out, nil
	}
}
