/** The threads of the engine start whatever flags the program was started with. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { threadFlags } from '../../../src/engines/thread-flags.ts'
import { folder } from './bench.ts'

const SCRIPT = `
  import { connect, topic } from 'posthorn'
  const post = await connect('sqlite:' + process.env.STORE)
  await post.publish(topic('events'), 1)
  console.log(JSON.stringify(await post.admin.checkIntegrity()))
  await post.close()
`

describe('the flags of the program', { concurrency: 2 }, () => {
  test('reach the threads as far as they say how modules are found and read', () => {
    for (const kept of [
      ['--conditions=posthorn-source'],
      ['--conditions', 'posthorn-source'],
      ['-C', 'posthorn-source'],
      ['--no-strip-types'],
      ['--experimental-strip-types'],
      ['--experimental-transform-types'],
    ]) {
      assert.deepEqual(threadFlags(['--test', ...kept, '--enable-source-maps']), kept)
    }
    assert.deepEqual(
      threadFlags([
        '--input-type=module',
        '--eval',
        'x',
        '-e',
        'x',
        '--print',
        '--test',
        '--inspect-brk',
        '--cpu-prof',
      ]),
      [],
    )
  })

  const started: Record<string, (path: string) => readonly string[]> = {
    '--eval': () => ['--eval', SCRIPT],
    '--cpu-prof': (path) => ['--cpu-prof', `--cpu-prof-dir=${path}`, '--eval', SCRIPT],
    '--import': () => ['--import', 'data:text/javascript,', '--eval', SCRIPT],
    '--inspect': () => ['--inspect=0', '--eval', SCRIPT],
  }
  for (const [name, flags] of Object.entries(started)) {
    test(`${name}: they start, and work`, async (context) => {
      const path = folder(context)
      const parameters = ['--conditions=posthorn-source', '--input-type=module', ...flags(path)]
      const env = { ...process.env, STORE: join(path, 'store.db') }
      const { stdout } = await promisify(execFile)(process.execPath, parameters, { env })
      assert.equal(stdout.trim(), '[]')
    })
  }
})
