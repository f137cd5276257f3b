// A crowd at one weir before one slow origin. See `crowd`.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer, get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const [weir] = process.argv.slice(2)
const scratch = mkdtempSync(join(tmpdir(), 'weir-crowd-'))
const CROWD = 40
const PIECES = 12
const PIECE = 'x'.repeat(1000)
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// What the origin says under each path: headers, time until its head, time of its body.
const answers = {
  '/body': [{ 'cache-control': 'max-age=60' }, 0, 6000],
  '/head': [{ 'cache-control': 'max-age=60' }, 6000, 0],
  '/etag': [{ etag: '"a"' }, 0, 6000],
  '/unkept': [{ 'cache-control': 'no-store' }, 1000, 0]
}
const calls = {}
const origin = createServer(async (request, response) => {
  const [headers, head, body] = answers[request.url]
  const count = calls[request.url] ??= { all: 0, now: 0, most: 0 }
  count.all++
  count.most = Math.max(count.most, ++count.now)
  await pause(head)
  response.writeHead(200, { ...headers, 'content-length': String(PIECES * PIECE.length) })
  for (let piece = 0; piece < PIECES; piece++) {
    response.write(PIECE)
    await pause(body / PIECES)
  }
  response.end()
  count.now--
})
origin.listen(0, '127.0.0.1')
await new Promise(resolve => origin.once('listening', resolve))

writeFileSync(join(scratch, 'weir.toml'), `
[sql]
url = "sqlite://${scratch}/weir.db"
[store]
path = "${scratch}/store"
[policy]
registry = "${scratch}/policies"
builtin = "native"
[[upstream]]
name = "crowd"
prefix = "/"
origin = "http://127.0.0.1:${origin.address().port}"
`)
const host = spawn(weir, ['serve', '--config', 'weir.toml', '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'],
  { cwd: scratch, stdio: ['ignore', 'pipe', 'pipe'] })
let text = ''
for (const stream of [host.stdout, host.stderr]) stream.on('data', piece => { text += piece })
while (!/listening on http:\/\/\S+:\d+/.test(text)) {
  if (host.exitCode !== null) throw new Error(text)
  await pause(50)
}
const port = /listening on http:\/\/\S+?:(\d+)/.exec(text)[1]

const agent = new Agent({ maxSockets: Infinity })
const read = path => new Promise(resolve => {
  const request = get({ host: '127.0.0.1', port, path, agent }, response => {
    let bytes = 0
    response.on('data', piece => { bytes += piece.length })
    response.on('error', () => resolve(false))
    response.on('end', () => resolve(response.statusCode === 200 && bytes === PIECES * PIECE.length))
  })
  request.on('error', () => resolve(false))
})

console.log('what the origin does'.padEnd(44), 'readers', 'whole', 'origin calls', 'at once')
for (const [path, what] of [
  ['/body', 'a body that takes 6 s'],
  ['/head', 'a head that takes 6 s'],
  ['/etag', 'a body that takes 6 s, an ETag, no lifetime'],
  ['/unkept', 'not to be kept, a head that takes 1 s']
]) {
  const whole = (await Promise.all(Array.from({ length: CROWD }, () => read(path)))).filter(Boolean).length
  const { all, most } = calls[path]
  console.log(what.padEnd(44), String(CROWD).padStart(7), String(whole).padStart(5), String(all).padStart(12), String(most).padStart(7))
}
agent.destroy()
host.kill()
origin.closeAllConnections()
origin.close()
rmSync(scratch, { recursive: true, force: true })
