// The scanning page: camera pictures go to the program, what it saw comes back.
const $ = id => document.getElementById(id)
const token = document.querySelector('meta[name=token]').content
const video = $('video'), outline = $('outline')
const WIDEST = 1280 // pixels; more costs time and shows no more modules
const INFLIGHT = 2  // pictures on their way: one is read while the next is made

let stream = null, inflight = 0, ended = false
const errand = new AbortController() // of pictures on their way

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { 'X-Azs-Token': token } })
  if (answer.status === 204) return null
  const type = answer.headers.get('Content-Type') ?? ''
  if (!type.startsWith('application/json')) throw new Error(await answer.text())
  const value = await answer.json()
  if (!answer.ok) throw new Error(value.error)
  return value
}

function say(error) {
  $('error').hidden = !error
  $('error').textContent = error ? error.message ?? String(error) : ''
}

// What the program knows, drawn.

function draw(view) {
  if (ended) return
  $('hint').textContent = view.hint || words(view)
  $('rate').textContent = view.rate ? view.rate.toFixed(1) : '–'
  $('decoded').textContent = view.rate ? Math.round(view.decoded * 100) + ' %' : '–'
  const box = $('bundles'), many = view.bundles.length > 1
  while (box.children.length > view.bundles.length) box.lastChild.remove()
  while (box.children.length < view.bundles.length) box.append($('bundle').content.cloneNode(true))
  view.bundles.forEach((bundle, i) => drawBundle(box.children[i], bundle, many))
  if (view.done) finish(view)
}

function words(view) {
  if (!view.bundles.length) return stream ? 'Point the camera at the codes.' : 'Nothing was seen yet.'
  if (view.bundles.filter(b => b.done).length > 1) return 'More than one bundle is here: choose one.'
  const b = view.bundles[0]
  return b.done ? 'All frames are here.' : `${b.k - b.have} of ${b.k} frames are missing.`
}

function drawBundle(article, bundle, many) {
  const share = Math.min(bundle.have, bundle.k) / bundle.k * 100
  article.className = bundle.done ? 'done' : ''
  article.querySelector('.arc').style.strokeDasharray = `${share} 100`
  article.querySelector('text').textContent = `${bundle.have}/${bundle.k}`
  article.querySelector('svg').setAttribute('aria-label', `${bundle.have} of ${bundle.k} frames`)
  article.querySelector('h2').textContent = 'bundle ' + bundle.id
  const map = article.querySelector('.map'), lacking = new Set(bundle.missing)
  while (map.children.length > bundle.k) map.lastChild.remove()
  while (map.children.length < bundle.k) map.append(document.createElement('i'))
  for (let i = 0; i < bundle.k; i++) map.children[i].className = lacking.has(i) ? 'lack' : ''
  map.setAttribute('aria-label', lacking.size ? 'missing: ' + bundle.missing.map(i => i + 1).join(', ') : 'every frame is here')
  const take = article.querySelector('button')
  take.hidden = !(many && bundle.done)
  take.onclick = () => call('choose?id=' + bundle.id, { method: 'POST' }).then(draw, say)
}

// The program is told that the cover sheet stands here, and ends.
function finish(view) {
  ended = true
  stop()
  errand.abort()
  $('cover').textContent = view.cover
  $('arrived').hidden = false
  $('hint').textContent = 'The bundle arrived.'
  for (const id of ['camera', 'close']) $(id).hidden = true
  $('pick').hidden = $('torch').hidden = $('drop').hidden = true
  $('cover').focus()
  call('close', { method: 'POST' }).catch(() => {})
}

function mark(codes) {
  outline.width = video.videoWidth
  outline.height = video.videoHeight
  const pen = outline.getContext('2d')
  pen.lineWidth = Math.max(4, outline.width / 200)
  for (const code of codes ?? []) {
    pen.strokeStyle = code.new ? '#3fb950' : '#4493f8'
    pen.beginPath()
    for (const [x, y] of code.corners) pen.lineTo(x * outline.width, y * outline.height)
    pen.closePath()
    pen.stroke()
  }
}

// The camera.

const sheet = document.createElement('canvas')

function snap() {
  if (!stream || ended) return
  schedule()
  if (inflight >= INFLIGHT || !video.videoWidth) return
  const scale = Math.min(1, WIDEST / video.videoWidth)
  sheet.width = Math.round(video.videoWidth * scale)
  sheet.height = Math.round(video.videoHeight * scale)
  sheet.getContext('2d').drawImage(video, 0, 0, sheet.width, sheet.height)
  inflight++
  sheet.toBlob(async picture => {
    try {
      const view = await call('picture', { method: 'POST', body: picture, signal: errand.signal })
      say(null)
      mark(view.codes)
      draw(view)
    } catch (e) {
      if (!ended) say(e)
    } finally {
      inflight--
    }
  }, 'image/jpeg', 0.85)
}

function schedule() {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(snap)
  else setTimeout(snap, 33)
}

async function start() {
  say(null)
  const chosen = $('cameras').value
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: {
      ...(chosen ? { deviceId: { exact: chosen } } : { facingMode: 'environment' }),
      width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } } })
  } catch (e) {
    const why = { NotAllowedError: 'the browser may not use the camera: allow it beside the address', NotFoundError: 'this computer has no camera', NotReadableError: 'another program uses the camera' }
    say(new Error((why[e.name] ?? e.message) + '. Images and videos can be dropped below.'))
    return
  }
  video.srcObject = stream
  await video.play()
  $('blank').hidden = true
  $('camera').textContent = 'Stop camera'
  await cameras()
  const track = stream.getVideoTracks()[0]
  $('torch').hidden = !track.getCapabilities?.().torch
  schedule()
}

function stop() {
  stream?.getTracks().forEach(t => t.stop())
  stream = null
  video.srcObject = null
  mark([])
  $('blank').hidden = false
  $('camera').textContent = 'Start camera'
  $('torch').hidden = true
  $('torch').setAttribute('aria-pressed', 'false')
}

async function cameras() {
  const all = (await navigator.mediaDevices.enumerateDevices()).filter(d => d.kind === 'videoinput')
  const now = stream?.getVideoTracks()[0]?.getSettings().deviceId
  $('cameras').replaceChildren(...all.map((d, i) => new Option(d.label || `camera ${i + 1}`, d.deviceId, false, d.deviceId === now)))
  $('pick').hidden = all.length < 2
}

async function torch() {
  const on = $('torch').getAttribute('aria-pressed') !== 'true'
  await stream.getVideoTracks()[0].applyConstraints({ advanced: [{ torch: on }] })
  $('torch').setAttribute('aria-pressed', String(on))
}

// Images and videos.

async function send(files) {
  const errors = []
  say(null)
  for (const file of files) {
    if (ended) return
    $('hint').textContent = `${file.name} is being read …`
    const watch = setInterval(() => call('view').then(draw, () => {}), 500)
    try {
      draw(await call('file?name=' + encodeURIComponent(file.name), { method: 'POST', body: file }))
    } catch (e) {
      errors.push(`${file.name}: ${e.message}`)
      say(errors.join('\n'))
    } finally {
      clearInterval(watch)
    }
  }
}

$('camera').onclick = () => stream ? stop() : start()
$('cameras').onchange = () => { stop(); start() }
$('torch').onclick = () => torch().catch(say)
$('files').onchange = async e => {
  const chosen = [...e.target.files]
  e.target.value = '' // the same file can be chosen again
  await send(chosen)
}
$('close').onclick = async () => {
  ended = true
  stop()
  errand.abort()
  await call('close', { method: 'POST' }).catch(() => {})
  $('hint').textContent = 'The scan was ended. What was read is kept for the next one.'
}
for (const kind of ['dragenter', 'dragover']) document.addEventListener(kind, e => { e.preventDefault(); $('drop').classList.add('over') })
for (const kind of ['dragleave', 'drop']) document.addEventListener(kind, e => { e.preventDefault(); $('drop').classList.remove('over') })
document.addEventListener('drop', e => send([...e.dataTransfer.files]))
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.target.tagName === 'SELECT' || ended) return
  const key = { c: 'camera', t: 'torch', o: 'files', Escape: 'close' }[e.key]
  if (key && !$(key).hidden) { e.preventDefault(); $(key).click() }
})
call('view').then(draw, say)
