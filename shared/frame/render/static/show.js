'use strict'
const $ = id => document.getElementById(id)
const film = JSON.parse($('film').textContent)
const QUIET = 4 // modules of white around a code, ISO/IEC 18004
const side = film.modules + 2 * QUIET

const unpack = still => {
  const bytes = atob(still.bits)
  const modules = still.modules || film.modules
  const row = Math.ceil(modules / 8)
  return { index: still.index, modules, black: (x, y) => bytes.charCodeAt(y * row + (x >> 3)) & (0x80 >> (x & 7)) }
}
const codes = film.codes.map(unpack)
let at = 0, fps = film.fps, size = 1, paused = false, due = 0, scale = 0

// Whole pixels a module: a module that is wider than its neighbour is harder to read.
function layout() {
  const dots = devicePixelRatio || 1
  const room = Math.min(document.querySelector('main').clientWidth - 32, Math.max(240, innerHeight - 210)) * dots
  const fits = Math.max(1, Math.floor(room / side))
  scale = Math.max(1, Math.round(fits * size))
  const canvas = $('code')
  canvas.width = canvas.height = side * scale
  canvas.style.width = canvas.style.height = side * scale / dots + 'px'
  paint()
}

function paint() {
  const code = codes[at]
  const pen = $('code').getContext('2d')
  pen.fillStyle = '#fff'
  pen.fillRect(0, 0, side * scale, side * scale)
  pen.fillStyle = '#000'
  for (let y = 0; y < film.modules; y++)
    for (let x = 0; x < film.modules; x++)
      if (code.black(x, y)) pen.fillRect((x + QUIET) * scale, (y + QUIET) * scale, scale, scale)
  $('code').setAttribute('aria-label', 'QR code ' + code.index)
  $('where').textContent = 'code ' + (at + 1) + ' of ' + codes.length + ' · ' + (paused ? 'paused' : fps + ' a second')
  $('done').style.width = 100 * (at + 1) / codes.length + '%'
}

function tick(now) {
  if (!paused && now >= due) {
    due = Math.max(due + 1000 / fps, now)
    at = (at + 1) % codes.length
    paint()
  }
  requestAnimationFrame(tick)
}

const does = {
  play() { paused = !paused; $('play').textContent = paused ? 'Play' : 'Pause'; paint() },
  move(by) { if (!paused) does.play(); at = (at + by + codes.length) % codes.length; paint() },
  step() { does.move(1) },
  back() { does.move(-1) },
  slower() { fps = Math.max(1, fps - 1); paint() },
  faster() { fps = Math.min(15, fps + 1); paint() },
  larger() { size = Math.min(2, size + .1); layout() },
  smaller() { size = Math.max(.3, size - .1); layout() }
}
for (const id of ['back', 'play', 'step', 'slower', 'faster', 'smaller', 'larger']) $(id).onclick = does[id]

const keys = { ' ': 'play', p: 'play', n: 'step', '.': 'step', ArrowRight: 'step', b: 'back', ',': 'back', ArrowLeft: 'back', '-': 'slower', '+': 'faster', '=': 'faster', s: 'smaller', l: 'larger' }
addEventListener('keydown', e => {
  const id = keys[e.key]
  if (!id || e.ctrlKey || e.altKey || e.metaKey || e.key === ' ' && /^(BUTTON|SUMMARY)$/.test(e.target.tagName)) return
  e.preventDefault()
  does[id]()
})
addEventListener('resize', layout)

// The sheets: drawn once, shown in print only.
const svg = (name, with_) => {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const k in with_) e.setAttribute(k, with_[k])
  return e
}
film.sheets.map(unpack).forEach((code, n) => {
  let path = ''
  for (let y = 0; y < code.modules; y++)
    for (let x = 0; x < code.modules; x++)
      if (code.black(x, y)) {
        const from = x
        while (x + 1 < code.modules && code.black(x + 1, y)) x++
        path += 'M' + (from + QUIET) + ' ' + (y + QUIET) + 'h' + (x + 1 - from) + 'v1h-' + (x + 1 - from) + 'z'
      }
  const all = code.modules + 2 * QUIET
  const picture = svg('svg', { width: all * film.millimetres + 'mm', height: all * film.millimetres + 'mm', viewBox: '0 0 ' + all + ' ' + all, 'shape-rendering': 'crispEdges' })
  picture.append(svg('path', { d: path, fill: '#000' }))
  const figure = document.createElement('figure'), under = document.createElement('figcaption'), place = document.createElement('b')
  place.textContent = (n + 1) + ' / ' + film.sheets.length
  under.append(place, 'index ' + code.index + ' · ' + film.id)
  figure.append(picture, under)
  $('sheets').append(figure)
})
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(d => { d.open = true }))

layout()
requestAnimationFrame(now => { due = now + 1000 / fps; requestAnimationFrame(tick) })
