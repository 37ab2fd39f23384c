// Package scan reads the optical frames of package frame from pictures: camera
// pictures, photographs, screenshots, videos and printed sheets.
//
// A [Reader] takes one grey picture ([Luma]) and returns the texts of the QR
// codes in it. The way to a module matrix is our own, since that is where stock
// gozxing loses most pictures; the matrix is decoded by gozxing's decoder, whose
// Reed–Solomon code decides whether something was read. A [Source] gives the
// pictures of a file, a folder, a video or a PDF, one after the other.
//
// # What holds
//
// A text that is returned was protected by the symbol's own error correction:
// pictures are hostile, may show anything, and what they show is a text and
// nothing more. Whether the text is a frame, of which bundle, and whether the
// bundle is genuine is for the packages frame and trust to say. A source looks
// at a picture's header before it decodes the picture: what claims more pixels
// or bytes than [Limits] allow is refused.
//
// # What does not
//
// A frame that the camera caught while the screen went from one code to the next
// holds parts of two codes and cannot be read when each has more than the error
// correction can replace. The sender shows every frame again.
package scan
