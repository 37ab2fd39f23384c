// Package psrp speaks the PowerShell Remoting Protocol ([MS-PSRP]) as a client
// that runs single commands on a restricted endpoint: fragments, messages, a
// runspace pool of one runspace, and pipelines of one command.
//
// It does no I/O of its own. A [Pool] drives a [Shell], the few WSMan
// operations that carry PSRP, which package wsman implements; fragments,
// messages and their contents are plain bytes and values, for both ends of the
// wire, so that a simulated endpoint is built from the same parts.
//
// The properties that the package holds:
//
//   - Never a script. A [Command] is a name and parameters, each a string, a
//     number or a switch; IsScript is false in all that is written, so an
//     endpoint in NoLanguage mode accepts it and no text is ever evaluated.
//   - Success is only what the endpoint says: a pipeline that completed and
//     wrote no error record. Any error record fails the call ([RemoteError]),
//     as $ErrorActionPreference = 'Stop' does. If the end was not seen the
//     outcome is unknown, and the error says so ([UnknownOutcome]).
//   - What a hostile endpoint sends is bounded before it is kept: 10 MB for an
//     object, 50 MB for a pipeline, [MaxOutput] for the output that is
//     returned, and the bounds of package clixml.
//
// The limit: identity is the transport's matter. The ids within PSRP are
// checked to be consistent, but it is the sealed connection, the shell id and
// the command id that bind a reply to its request.
//
// [MS-PSRP]: https://learn.microsoft.com/openspecs/windows_protocols/ms-psrp
package psrp
