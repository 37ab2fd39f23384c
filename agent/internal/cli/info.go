package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/agent/internal/flow"
	"github.com/azs-courier/azs-courier/agent/internal/pep"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// pepExits are the failures of every verb that talks to the endpoint.
var pepExits = []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable, fault.NothingYet}

func infoVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "info", Usage: "ask the stamp for its cloud id, version and nodes",
		Description: "Runs Get-AzureStackStampInformation on the privileged endpoint. What the stamp tells is remembered, so that status can say when it has grown.",
		Flags:       pepFlags(),
		Action:      appkit.Run(runInfo),
	}, appkit.Help{
		Examples: []string{p.Name + ` info --pep 192.0.2.1,192.0.2.2,192.0.2.3 --pep-user 'AZURESTACK\CloudAdmin'`},
		Exit:     pepExits,
	})
}

func runInfo(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	far, err := endpoint(e, c)
	if err != nil {
		return err
	}
	defer far.Close(ctx)
	_, st, err := far.Session(ctx)
	if err != nil {
		return err
	}
	if s, err := e.Station(); err == nil { // before init there is nothing to remember it in
		defer s.Close()
		if err := flow.NoteStamp(s.Ledger, st); err != nil {
			return err
		}
	} else if fault.KindOf(err) != fault.Locked {
		return err
	}
	showStamp(e, st)
	return nil
}

func showStamp(e *appkit.Env, st pep.Stamp) {
	e.Console.Result("stamp", map[string]any{
		"cloudId": st.CloudID, "version": st.Version.String(), "nodes": st.Nodes, "deploymentId": st.DeploymentID,
		"region": st.Region, "domain": st.Domain, "tenant": st.TenantID,
	}, func(w io.Writer) {
		fmt.Fprintf(w, "cloud id    %q\nversion     %s\nnodes       %d\ndeployment  %q\nregion      %q\ndomain      %q\n", st.CloudID, st.Version, st.Nodes, st.DeploymentID, st.Region, st.Domain)
	})
}

func licenseVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "license", Usage: "give the stamp a license file", ArgsUsage: "FILE",
		Description: "Runs Save-HCILicense on the privileged endpoint, for stamps of more than one node after version 1.2209.0.23.",
		Flags:       pepFlags(),
		Action:      appkit.Run(runLicense),
	}, appkit.Help{Examples: []string{p.Name + ` license license.txt --pep 192.0.2.1 --pep-user 'AZURESTACK\CloudAdmin'`}, Exit: pepExits})
}

func runLicense(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	args, err := appkit.Args(c, "FILE")
	if err != nil {
		return err
	}
	raw, err := medium.ReadText(args[0], 1<<20)
	if err != nil {
		return err
	}
	license, err := readLicense(raw)
	if err != nil {
		return err
	}
	far, err := endpoint(e, c)
	if err != nil {
		return err
	}
	defer far.Close(ctx)
	s, st, err := far.Session(ctx)
	if err != nil {
		return err
	}
	if err := s.SaveHCILicense(ctx, st, license); err != nil {
		return err
	}
	e.Console.Result("license", map[string]any{"cloudId": st.CloudID, "file": args[0]}, func(w io.Writer) {
		fmt.Fprintf(w, "the license is saved on stamp %q\n", st.CloudID)
	})
	return nil
}

// readLicense reads a license file: UTF-8 text, which goes to the stamp without the
// blanks around it.
func readLicense(raw []byte) (secret.Text, error) {
	text := strings.TrimSpace(strings.TrimPrefix(string(raw), "\ufeff"))
	if text == "" || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return secret.Text{}, fault.New(fault.Refused, "the license file is empty or not UTF-8 text")
	}
	return secret.New(text), nil
}
