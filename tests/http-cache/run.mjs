// Starts the suite's origin and weir before it, runs the suite, and prints the table. See `run`.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const [work, only] = process.argv.slice(2)
const suite = join(work, 'node_modules/http-cache-tests')
const here = dirname(fileURLToPath(import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'weir-http-cache-'))
const running = []

const freePort = () => new Promise(resolve => {
  const probe = createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address()
    probe.close(() => resolve(port))
  })
})

function start (command, args, options) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  running.push(child)
  child.text = ''
  child.stdout.on('data', piece => { child.text += piece })
  child.stderr.on('data', piece => { child.text += piece })
  return child
}

async function until (child, word) {
  for (let tries = 0; tries < 300; tries++) {
    if (child.text.includes(word)) return
    if (child.exitCode !== null) break
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  throw new Error(`${child.spawnfile} did not start:\n${child.text}`)
}

async function stopAll () {
  for (const child of running) child.kill()
  rmSync(scratch, { recursive: true, force: true })
}

// The origin listens on every interface as the package has it: this copy does on loopback only.
async function startOrigin (port) {
  const copy = join(suite, 'server/server-loopback.mjs')
  const text = readFileSync(join(suite, 'server/server.mjs'), 'utf8')
  writeFileSync(copy, text.replace('server.listen(port)', 'server.listen(port, "127.0.0.1")'))
  const env = { ...process.env, npm_config_protocol: 'http', npm_config_port: String(port), npm_config_pidfile: join(scratch, 'origin.pid') }
  await until(start(process.execPath, [copy], { cwd: suite, env }), 'Listening')
}

// What the suite asks of a cache is all that the RFC allows; weir does less of it unless it is told to.
const variants = {
  'weir, all allowed': 'keep_asked_with_cookie = true\nkeep_set_cookie = true\nclients_may_force = true',
  'weir, as it comes': ''
}

async function startWeir (port, origin, name) {
  const place = mkdtempSync(join(scratch, 'weir-'))
  const config = join(place, 'weir.toml')
  writeFileSync(config, `
[sql]
url = "sqlite://${place}/weir.db"
[store]
path = "${place}/store"
[policy]
registry = "${place}/policies"
builtin = "native"
[[upstream]]
name = "tests"
prefix = "/"
origin = "http://127.0.0.1:${origin}"
${variants[name]}
`)
  const args = ['serve', '--config', config, '--listen', `127.0.0.1:${port}`, '--admin-listen', '127.0.0.1:0']
  await until(start(process.env.WEIR, args, { cwd: scratch }), 'listening on')
}

async function allTests () {
  const { default: tests } = await import(join(suite, 'tests/index.mjs'))
  const { default: surrogate } = await import(join(suite, 'tests/surrogate-control.mjs'))
  return [...tests, surrogate]
}

async function runSuite (port, name) {
  const env = { ...process.env, npm_config_base: `http://127.0.0.1:${port}`, npm_package_config_id: '', npm_config_id: only ?? '' }
  const client = start(process.execPath, ['--no-warnings', 'cli.mjs'], { cwd: suite, env })
  await new Promise(resolve => client.on('exit', resolve))
  if (only) {
    console.log(`${name}:\n${client.text}`)
    return null
  }
  return JSON.parse(client.text.slice(client.text.indexOf('{')))
}

// As the suite's own pages judge: a test whose dependency is not passed counts as not passed.
function passes (all, results, id) {
  const test = all.get(id)
  if (!test || results[id] !== true) return false
  return (test.depends_on ?? []).every(needed => passes(all, results, needed))
}

function score (all, results) {
  const counts = { required: 0, optimal: 0, check: 0 }
  for (const [id, test] of all) {
    if (passes(all, results, id)) counts[test.kind ?? 'required']++
  }
  return counts
}

function print (tests, runs) {
  const all = new Map()
  for (const one of tests) for (const test of one.tests) if (!test.browser_only) all.set(test.id, { ...test, suite: one.id })
  const of = kind => [...all.values()].filter(test => (test.kind ?? 'required') === kind).length
  const row = (name, results) => {
    const { required, optimal, check } = score(all, results)
    console.log(name.padEnd(28), String(required).padStart(9), String(optimal).padStart(9), String(check).padStart(9))
  }
  console.log(''.padEnd(28), `of ${of('required')}`.padStart(9), `of ${of('optimal')}`.padStart(9), `of ${of('check')}`.padStart(9))
  console.log('cache'.padEnd(28), 'required'.padStart(9), 'optimal'.padStart(9), 'check'.padStart(9))
  for (const name in runs) row(name, runs[name])
  for (const [name, file] of [['Squid 4.13', 'squid'], ['Traffic Server 8.0.8', 'trafficserver'], ['httpd 2.4.46', 'apache'], ['Varnish 6.4', 'varnish'], ['nginx 1.18', 'nginx'], ['Fastly 2019-06', 'fastly'], ['nuster', 'nuster']]) {
    row(name, JSON.parse(readFileSync(join(suite, 'results', `${file}.json`), 'utf8')))
  }
  const why = JSON.parse(readFileSync(join(here, 'explained.json'), 'utf8'))
  const told = new Set()
  let allGood = true
  for (const [name, results] of Object.entries(runs)) {
    const failed = [...all.values()].filter(test => (test.kind ?? 'required') !== 'check' && !passes(all, results, test.id))
    const seldom = told.size ? ', besides those above' : ''
    console.log(`\n${name}, not passed: ${failed.length}${seldom}`)
    let unexplained = 0
    for (const test of failed) {
      const said = why[test.id] ?? Object.entries(why).find(([id]) => id.endsWith('*') && test.id.startsWith(id.slice(0, -1)))?.[1]
      if (!said) unexplained++
      if (told.has(test.id)) continue
      told.add(test.id)
      const seen = results[test.id] === true ? 'a test that it depends on is not passed' : results[test.id]?.join(': ')
      console.log(`  ${(test.kind ?? 'required').padEnd(8)} ${test.id}: ${said ?? `NOT EXPLAINED (${seen})`}`)
    }
    const { required, optimal } = score(all, results)
    const good = required > 122 && optimal > 59 && unexplained === 0
    console.log(`http-cache-tests: ${name}: required=${required} optimal=${optimal} unexplained=${unexplained}: ${good ? 'passed' : 'FAILED'}`)
    allGood &&= good
  }
  return allGood
}

let good = false
try {
  const origin = await freePort()
  await startOrigin(origin)
  const runs = {}
  for (const name in variants) {
    const port = await freePort()
    await startWeir(port, origin, name)
    runs[name] = await runSuite(port, name)
  }
  good = Boolean(only) || print(await allTests(), runs)
} finally {
  await stopAll()
}
process.exit(good ? 0 : 1)
