package render

import (
	"fmt"
	"io"
	"math"
	"strings"

	"codeberg.org/go-pdf/fpdf"

	"github.com/azs-courier/azs-courier/shared/frame"
)

// PrintVersion is the version of printed codes: a handheld scanner types one in
// six seconds, and an office scanner reads a page of them.
const PrintVersion = 10

// Module is the side of a printed module in millimetres: ten dots at 600 dpi, five
// at 300.
const Module = 25.4 / 60

// Measures of an A4 page in millimetres.
const (
	pageWidth, pageHeight = 210.0, 297.0
	edge                  = 15.0
	foot                  = 16.0 // at the bottom, with the line there
	gap                   = 5.0  // between the white borders of two codes
	caption               = 8.0  // below a code
)

// PrintFit returns the version of printed codes for a bundle of so many bytes:
// [PrintVersion], or the smallest that carries it, and 0 when none does.
func PrintFit(length int) int {
	if v := frame.SmallestVersion(length); v == 0 || v > PrintVersion {
		return v
	}
	return PrintVersion
}

// grid returns how many codes of a side in millimetres stand beside and below each
// other on a page.
func grid(side float64) (cols, rows int) {
	return int((pageWidth - 2*edge + gap) / (side + gap)), int((pageHeight - edge - foot) / (side + caption))
}

// PDF writes A4 sheets: a cover with what the outside of the bundle says and how
// to restore and check it without this program, then the codes to keep, each with
// its place, its index and the bundle's id. The same set and cover give the same
// bytes.
func (r *Reel) PDF(w io.Writer, cover Cover) error {
	stills, err := r.Kept()
	if err != nil {
		return err
	}
	set := r.set
	side := float64(Modules(set.Version())+2*Quiet) * Module
	cols, rows := grid(side)
	pages := 1 + (len(stills)+cols*rows-1)/(cols*rows)

	pdf := fpdf.New("P", "mm", "A4", "")
	pdf.SetCatalogSort(true)
	pdf.SetCreationDate(cover.Made.UTC())
	pdf.SetModificationDate(cover.Made.UTC())
	pdf.SetTitle("azs-courier "+cover.Title, true)
	pdf.SetProducer("azs-courier", true)
	pdf.SetLang("en")
	pdf.SetMargins(edge, edge, edge)
	pdf.SetAutoPageBreak(false, 0)
	latin := pdf.UnicodeTranslatorFromDescriptor("")
	pdf.SetFooterFunc(func() {
		pdf.SetY(pageHeight - foot + 4)
		pdf.SetFont("Helvetica", "", 8)
		pdf.SetTextColor(90, 90, 90)
		pdf.CellFormat(0, 4, latin(fmt.Sprintf("bundle %s · any %d of the %d codes are enough · page %d of %d", set.ID(), set.K(), len(stills), pdf.PageNo(), pages)), "", 0, "C", false, 0, "")
		pdf.SetTextColor(0, 0, 0)
	})
	r.coverPage(pdf, latin, cover, len(stills))
	for i, s := range stills {
		at := i % (cols * rows)
		if at == 0 {
			pdf.AddPage()
		}
		// The codes stand in the middle of the page, whatever their size.
		left := (pageWidth - float64(cols)*(side+gap) + gap) / 2
		x, y := left+float64(at%cols)*(side+gap), edge+float64(at/cols)*(side+caption)
		larger := float64(s.Code.side-Modules(set.Version())) * Module / 2
		drawPDF(pdf, s.Code, snap(x-larger), snap(y-larger))
		pdf.SetFont("Helvetica", "B", 8)
		pdf.SetXY(x, y+side-Module)
		pdf.CellFormat(side, 3.5, fmt.Sprintf("%d / %d", i+1, len(stills)), "", 2, "C", false, 0, "")
		pdf.SetFont("Helvetica", "", 6.5)
		pdf.CellFormat(side, 3, latin(fmt.Sprintf("index %d · %s", s.Index, set.ID())), "", 0, "C", false, 0, "")
	}
	return pdf.Output(w)
}

// coverPage writes the first page.
func (r *Reel) coverPage(pdf *fpdf.Fpdf, latin func(string) string, cover Cover, n int) {
	const width = pageWidth - 2*edge
	pdf.AddPage()
	pdf.SetFont("Helvetica", "B", 14)
	pdf.CellFormat(0, 7, latin(cover.Title), "", 1, "", false, 0, "")
	pdf.SetFont("Helvetica", "", 9)
	pdf.CellFormat(0, 5, latin(fmt.Sprintf("azs-courier bundle of %d bytes in wire form, %d codes of version %d, id %s", r.set.Length(), n, r.set.Version(), r.set.ID())), "", 1, "", false, 0, "")
	pdf.Ln(2)
	for _, row := range cover.Rows {
		pdf.SetFont("Helvetica", "", 8.5)
		pdf.CellFormat(24, 4.6, latin(row.Name), "", 0, "", false, 0, "")
		pdf.SetFont("Courier", "", 8.5)
		pdf.MultiCell(0, 4.6, latin(row.Value), "", "L", false)
	}
	pdf.Ln(2)
	heading := func(text string) {
		pdf.SetFont("Helvetica", "B", 10)
		pdf.CellFormat(0, 6, latin(text), "T", 1, "", false, 0, "")
	}
	code := func(text string, size, height float64) {
		pdf.SetFont("Courier", "", size)
		pdf.SetFillColor(242, 242, 242)
		for line := range strings.Lines(text) {
			pdf.SetX(edge + 4)
			pdf.CellFormat(width-4, height, latin(strings.TrimSuffix(line, "\n")), "", 1, "", true, 0, "")
		}
		pdf.Ln(1)
	}
	heading("Restoring and checking without azs-courier")
	for i, s := range recipe(r.set.K(), n) {
		pdf.SetFont("Helvetica", "", 8.5)
		pdf.SetX(edge)
		pdf.MultiCell(0, 4, latin(fmt.Sprintf("%d. %s", i+1, s.Text)), "", "L", false)
		code(s.Type, 8, 3.6)
	}
	heading("restore.py")
	code(script(), 6.8, 2.75)
}

// snap moves a length to whole dots at 300 dpi, so that a module begins and ends
// with a dot of every printer and scanner of a common resolution.
func snap(mm float64) float64 { return math.Round(mm*300/25.4) * 25.4 / 300 }

// drawPDF draws a code, its white border at x, y (millimetres from the top left).
// All modules are one path, filled at once: between two paths a viewer that smooths
// edges would leave hairs.
func drawPDF(pdf *fpdf.Fpdf, c *Code, x, y float64) {
	const point = 72 / 25.4
	var b strings.Builder
	fmt.Fprintf(&b, "q 0 0 0 rg %.5f 0 0 %.5f %.4f %.4f cm\n", Module*point, -Module*point, (x+Quiet*Module)*point, (pageHeight-y-Quiet*Module)*point)
	for r := range runs(c) {
		fmt.Fprintf(&b, "%d %d %d 1 re\n", r.x, r.y, r.width)
	}
	b.WriteString("f Q")
	pdf.RawWriteStr(b.String())
}

// run is black modules beside each other.
type run struct{ x, y, width int }

// runs yields the black runs of a code, row by row.
func runs(c *Code) func(yield func(run) bool) {
	return func(yield func(run) bool) {
		for y := range c.side {
			for x := 0; x < c.side; x++ {
				if !c.Black(x, y) {
					continue
				}
				from := x
				for c.Black(x, y) {
					x++
				}
				if !yield(run{from, y, x - from}) {
					return
				}
			}
		}
	}
}
