// The showing page: the codes of a bundle, one after the other.
const $ = id => document.getElementById(id)
const token = document.querySelector('meta[name=token]').content
const QUIET = 4 // modules of white around a code, ISO/IEC 18004

let reel = null, at = 0, fps = 8, paused = false, due = 0

async function load(version) {
  const answer = await fetch('reel' + (version ? '?version=' + version : ''))
  const value = await answer.json()
  $('error').hidden = answer.ok
  if (!answer.ok) {
    $('error').textContent = value.error
    return
  }
  for (const still of value.codes) still.bytes = Uint8Array.from(atob(still.bits), c => c.charCodeAt(0))
  reel = value
  at = 0
  paint()
}

function paint() {
  const still = reel.codes[at], side = reel.modules + 2 * QUIET, row = Math.ceil(reel.modules / 8)
  const canvas = $('code'), scale = Math.max(2, Math.floor(Math.min(canvas.clientWidth * devicePixelRatio, 4096) / side))
  canvas.width = canvas.height = side * scale
  const pen = canvas.getContext('2d')
  pen.fillStyle = '#fff'
  pen.fillRect(0, 0, canvas.width, canvas.height)
  pen.fillStyle = '#000'
  for (let y = 0; y < reel.modules; y++)
    for (let x = 0; x < reel.modules; x++)
      if (still.bytes[y * row + (x >> 3)] & (0x80 >> (x & 7))) pen.fillRect((x + QUIET) * scale, (y + QUIET) * scale, scale, scale)
  canvas.setAttribute('aria-label', `code ${still.index + 1} of ${reel.n}`)
  $('title').textContent = reel.title
  $('where').textContent = `code ${still.index + 1} · any ${reel.k} of ${reel.n} are enough · version ${reel.version} · ${fps} a second${paused ? ' · paused' : ''}`
}

function tick(now) {
  if (reel && !paused && now >= due) {
    due = Math.max(due + 1000 / fps, now)
    at = (at + 1) % reel.codes.length
    paint()
  }
  requestAnimationFrame(tick)
}

const move = by => { paused = true; label(); at = (at + by + reel.codes.length) % reel.codes.length; paint() }
const speed = by => { fps = Math.min(15, Math.max(1, fps + by)); paint() }
const LADDER = [5, 10, 15, 20, 25, 30]
const density = by => {
  const next = by > 0 ? LADDER.find(v => v > reel.version) : LADDER.findLast(v => v < reel.version)
  if (next) load(next)
}
const label = () => { $('play').textContent = paused ? 'Go on' : 'Pause' }

$('play').onclick = () => { paused = !paused; label(); paint() }
$('step').onclick = () => move(1)
$('back').onclick = () => move(-1)
$('slower').onclick = () => speed(-1)
$('faster').onclick = () => speed(1)
$('sparser').onclick = () => density(-1)
$('denser').onclick = () => density(1)
$('close').onclick = async () => {
  paused = true
  await fetch('close', { method: 'POST', headers: { 'X-Azs-Token': token } }).catch(() => {})
  $('where').textContent = 'The show was ended. This page can be closed.'
}
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.altKey || e.metaKey) return
  const key = { ' ': 'play', ArrowRight: 'step', ArrowLeft: 'back', '-': 'slower', '+': 'faster', '=': 'faster', s: 'sparser', d: 'denser', Escape: 'close' }[e.key]
  if (key) { e.preventDefault(); $(key).click() }
})
addEventListener('resize', () => reel && paint())
load(0).then(() => requestAnimationFrame(tick), e => { $('error').hidden = false; $('error').textContent = e.message })
