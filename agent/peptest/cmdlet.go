package peptest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/agent/internal/psrp"
	"github.com/azs-courier/azs-courier/agent/internal/psrp/clixml"
)

// version is a stamp version, such as 1.2311.1.22.
type version [4]int

func parseVersion(s string) (version, error) {
	var v version
	parts := strings.Split(s, ".")
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil || len(parts) != len(v) {
			return v, fmt.Errorf("stamp version %q is not four numbers with dots", s)
		}
		v[i] = int(n)
	}
	return v, nil
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d.%d", v[0], v[1], v[2], v[3]) }

func (v version) atLeast(w version) bool { return slices.Compare(v[:], w[:]) >= 0 }

// The versions from which the registration scripts use a cmdlet or a parameter.
// Of key pair and license they ask for a version above 1.2209.0.23.
var (
	sinceAssetTag     = version{1, 1912, 0, 19}
	sinceTokenVersion = version{1, 2008, 0, 49}
	sinceKeyPair      = version{1, 2209, 0, 24}
	afterToken6       = version{1, 2309, 0, 4}
)

// cmdlet is one of the six.
type cmdlet struct {
	name       string
	since      version
	parameters []parameter
	run        func(p *pipeline, a arguments) *psrp.ErrorRecord // the terminating error
}

type parameter struct {
	name     string
	isSwitch bool
	since    version
}

// common are the parameters that every cmdlet has, AsJob as that of all of the
// privileged endpoint's. Those not of PowerShell itself come first.
var common = []parameter{{name: "AsJob", isSwitch: true}, {name: "Verbose", isSwitch: true}, {name: "Debug", isSwitch: true},
	{name: "ErrorAction"}, {name: "WarningAction"}, {name: "InformationAction"}, {name: "ErrorVariable"},
	{name: "WarningVariable"}, {name: "InformationVariable"}, {name: "OutVariable"}, {name: "OutBuffer"}, {name: "PipelineVariable"}}

var cmdlets = []cmdlet{
	{name: "Get-AzureStackStampInformation", run: stampInformation},
	{name: "Set-RegistrationKeyPair", since: sinceKeyPair, run: setKeyPair},
	{name: "New-RegistrationToken", run: newToken, parameters: []parameter{
		{name: "BillingModel"}, {name: "MarketplaceSyndicationEnabled", isSwitch: true}, {name: "UsageReportingEnabled", isSwitch: true},
		{name: "AgreementNumber"}, {name: "MsAssetTag", since: sinceAssetTag}, {name: "TokenVersion", since: sinceTokenVersion}}},
	{name: "New-AzureStackActivation", run: newActivation, parameters: []parameter{{name: "ActivationKey"}, {name: "TimeoutInSeconds"}}},
	{name: "Remove-AzureStackActivation", run: removeActivation, parameters: []parameter{{name: "TimeoutInSeconds"}}},
	{name: "Save-HCILicense", since: sinceKeyPair, run: saveLicense, parameters: []parameter{{name: "License"}}},
}

// arguments are the bound parameters by their full names.
type arguments map[string]clixml.Value

func (a arguments) text(name string) string {
	if v, ok := a[name]; ok {
		return clixml.Text(v)
	}
	return ""
}

func (a arguments) on(name string) bool {
	on, _ := clixml.Truth(a[name])
	return on
}

// cmdlet finds, binds and runs a command.
func (p *pipeline) cmdlet(c psrp.Command) *psrp.ErrorRecord {
	have := p.s.stamp.version // never changes
	i := slices.IndexFunc(cmdlets, func(d cmdlet) bool { return strings.EqualFold(d.name, c.Name) && have.atLeast(d.since) })
	if i < 0 {
		return notFound(c.Name)
	}
	d := cmdlets[i]
	c.Name = d.name
	a, record := d.bind(c, have)
	if record != nil {
		return record
	}
	f := p.s.strike(onCmdlet, p.sh.address, "", d.name)
	if f != nil && f.Kind == Hold {
		if p.hold = p.s.hold(); !slices.Contains(actionCmdlets, d.name) {
			p.wait(p.hold)
		}
		f = nil
	}
	switch {
	case f != nil && (f.Kind == HostCall || f.Kind == VoidCall):
		p.callHost(f.Kind == HostCall)
		f = nil
	}
	switch {
	case p.ctx.Err() != nil:
		return stopped()
	case f == nil:
		return d.run(p, a)
	case f.Kind == ErrorAfter:
		record := d.run(p, a)
		p.write(psrp.NewErrorRecord(p.sh.pool, p.id, *thrown(d.name, f.Text)))
		return record
	case f.Kind == Terminating:
		return thrown(d.name, f.Text)
	case f.Kind == Busy:
		return thrown(d.name, fmt.Sprintf(TextBusy, strings.ToLower(newGUID().String())))
	}
	p.write(psrp.NewErrorRecord(p.sh.pool, p.id, *thrown(d.name, f.Text)))
	return d.run(p, a)
}

// bind binds arguments as PowerShell does: by the full name or an unambiguous
// part of it, else by position.
func (d cmdlet) bind(c psrp.Command, have version) (arguments, *psrp.ErrorRecord) {
	var known []parameter
	for _, p := range slices.Concat(d.parameters, common) {
		if have.atLeast(p.since) {
			known = append(known, p)
		}
	}
	find := func(name string) []parameter {
		var hits []parameter
		for _, p := range known {
			if strings.EqualFold(p.name, name) {
				return []parameter{p}
			}
			if len(name) <= len(p.name) && strings.EqualFold(p.name[:len(name)], name) {
				hits = append(hits, p)
			}
		}
		return hits
	}
	for _, given := range c.Parameters {
		name := strings.TrimSuffix(strings.TrimPrefix(given.Name, "-"), ":")
		if name == "" {
			continue
		}
		switch hits := find(name); len(hits) {
		case 1:
		case 0:
			return nil, bindingError(d.name, name, "NamedParameterNotFound", "A parameter cannot be found that matches parameter name '"+name+"'.")
		default:
			return nil, bindingError(d.name, name, "AmbiguousParameter", "Parameter cannot be processed because the parameter name '"+name+"' is ambiguous.")
		}
	}
	bound, err := c.Bind(func(name string) bool {
		hits := find(name)
		return len(hits) == 1 && hits[0].isSwitch
	})
	if err != nil {
		return nil, bindingError(d.name, "", "ParameterBindingFailed", err.Error())
	}
	a := arguments{}
	var positional []clixml.Value
	for _, b := range bound {
		if b.Name == "" {
			positional = append(positional, b.Value)
			continue
		}
		p := find(b.Name)[0]
		if _, twice := a[p.name]; twice {
			return nil, bindingError(d.name, p.name, "ParameterAlreadyBound",
				"Cannot bind parameter because parameter '"+p.name+"' is specified more than once.")
		}
		if _, isBool := clixml.Truth(b.Value); p.isSwitch && !isBool {
			return nil, bindingError(d.name, p.name, "CannotConvertArgument", "Cannot convert value to type \"System.Management.Automation.SwitchParameter\" for parameter '"+p.name+"'.")
		}
		a[p.name] = b.Value
	}
	for _, v := range positional {
		i := slices.IndexFunc(d.parameters, func(p parameter) bool {
			_, taken := a[p.name]
			return !taken && !p.isSwitch && have.atLeast(p.since)
		})
		if i < 0 {
			return nil, bindingError(d.name, "", "PositionalParameterNotFound",
				"A positional parameter cannot be found that accepts argument '"+clixml.Text(v)+"'.")
		}
		a[d.parameters[i].name] = v
	}
	return a, nil
}
