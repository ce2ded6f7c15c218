/** What a user meets who connects to a server without having installed the package that speaks to it. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const execute = promisify(execFile)
const ROOT = join(import.meta.dirname, '..', '..')

/** Has Node.js look for `pg` in a folder that has no packages, so that the error is its own. */
const WITHOUT_PG = `
import { registerHooks } from 'node:module'
const elsewhere = ${JSON.stringify(pathToFileURL(join(tmpdir(), 'without-packages', 'index.js')).href)}
registerHooks({
  resolve: (specifier, context, next) => next(specifier, specifier === 'pg' ? { ...context, parentURL: elsewhere } : context),
})`

const CONNECT = `
import { connect } from 'posthorn'
const attempts = []
for (const url of ['postgres://nobody@127.0.0.1:1/none', 'postgresql://nobody@127.0.0.1:1/none']) {
  const { code, message, details } = await connect(url).catch((error) => error)
  attempts.push({ code, message, details })
}
await (await connect('memory:')).close()
console.log(JSON.stringify(attempts))`

interface Attempt {
  readonly code: string
  readonly message: string
  readonly details: object
}

/** What comes of connecting in a process of its own, with or without `pg`. */
async function connectIn(hooks: string): Promise<Attempt[]> {
  const flags = ['--conditions=posthorn-source', `--import=data:text/javascript,${encodeURIComponent(hooks)}`]
  const { stdout } = await execute(process.execPath, [...flags, '--input-type=module', '--eval', CONNECT], {
    cwd: ROOT,
  })
  return JSON.parse(stdout) as Attempt[]
}

describe('a server whose driver is not installed', () => {
  test('is refused with the name of the package to install, and costs other engines nothing', async () => {
    for (const { code, message, details } of await connectIn(WITHOUT_PG)) {
      assert.equal(code, 'POSTHORN_DRIVER_MISSING')
      assert.deepEqual(details, { driver: 'pg' })
      assert.match(message, /npm install pg/)
    }
  })

  test('is not blamed on the driver when that is there', async () => {
    for (const { code } of await connectIn('')) assert.equal(code, 'POSTHORN_STORAGE_UNAVAILABLE')
  })
})
