import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'

test('the sign-up example answers at once, survives an outage of the mail server and loses nothing', async (t) => {
  const temporary = await mkdtemp(join(tmpdir(), 'posthorn-signup-test-'))
  t.after(() => rm(temporary, { recursive: true, force: true }))
  const parameters = [
    ...process.execArgv.filter(isCondition),
    join(import.meta.dirname, 'main.ts'),
    '--exit',
    '--quick',
  ]
  const child = spawn(process.execPath, parameters, { env: { ...process.env, TMPDIR: temporary }, timeout: 120_000 })
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])

  assert.equal(code, 0, `${output}\n${errors}`)
  assert.match(output, /^in the request \(sync\) +8 .* 0$/m)
  assert.match(output, /^with Posthorn \(async\) +100 .* 0$/m)
  assert.match(output, /^in the request \(sync\), mail server down +8 .* 8$/m)
  assert.match(output, /^with Posthorn \(async\), mail server down +50 .* 0$/m)
  for (const subscription of ['welcome-email', 'fraud-check', 'create-customer', 'notify-slack']) {
    assert.match(output, new RegExp(`^${subscription} .* 208 +0 +\\d+ +0$`, 'm'))
  }
  assert.match(output, /the breaker of welcome-email is open/)
  assert.match(output, /^Accounts created, then verified, then charged, once each: 200\.$/m)
  assert.match(output, /Nothing was lost: all 208 accepted sign-ups reached all four services\./)
  assert.deepEqual(await readdir(temporary), [], 'temporary data was left behind')
})

const isCondition = (parameter: string) => parameter.startsWith('--conditions')
