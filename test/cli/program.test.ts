import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import { WriteStream } from 'node:tty'
import { run } from '../../src/cli/program.ts'
import { systemClock } from '../../src/environment/index.ts'
import { posthorn as runAlone } from './command.ts'

interface Ended {
  readonly code: number
  readonly output: string
  readonly log: string
}

/** What a command line comes to, with streams that are terminals or not. */
async function posthorn(parameters: readonly string[], isTerminal = false): Promise<Ended> {
  const [output, log] = [newStream(isTerminal), newStream(isTerminal)]
  const code = await run(parameters, { output, log }, systemClock)
  output.end()
  log.end()
  return { code, output: await text(output), log: await text(log) }
}

function newStream(isTerminal: boolean): PassThrough {
  return Object.assign(new PassThrough(), { isTTY: isTerminal, getColorDepth: WriteStream.prototype.getColorDepth })
}

/** No server listens there. */
const ELSEWHERE = ['migrate', '--from', 'sqlite:no/such/file.db', '--to', 'postgres://me:secret@127.0.0.1:1/x']

describe('the command posthorn', () => {
  test('says what it can do on standard output, and ends with 0', async () => {
    const { code, output, log } = await posthorn(['--help'])
    assert.deepEqual([code, log], [0, ''])
    assert.match(output, /migrate .*move a store to another engine/)
  })

  test('says what is wrong with a command line on standard error, and ends with 2', async () => {
    for (const [parameters, problem] of [
      [['migrate'], /required option '--from <url>' not specified/],
      [['migrat'], /unknown command 'migrat'/],
      [['migrate', '--from', 'sqlite:x', '--to', 'kafka://x'], /option to .* begin with postgres: or postgresql:/],
      [['migrate', '--from', 'postgres://x/y', '--to', 'postgres://x/z'], /option from .* begin with sqlite:/],
      [['reopen', 'x.db'], /URL with no scheme.* \[POSTHORN_UNKNOWN_ENGINE\]/],
      [['migrate', '--from', 'sqlite:x', '--to', 'postgres://x/y?schema=A-B'], /POSTHORN_INVALID_OPTION/],
      [[], /Usage: posthorn/],
    ] as const) {
      const { code, output, log } = await posthorn(parameters)
      assert.equal(output, '')
      assert.match(log, problem)
      assert.equal(code, 2)
    }
  })

  test('says what failed on standard error, and ends with 1', async () => {
    const { code, output, log } = await posthorn(ELSEWHERE)
    assert.deepEqual([code, output], [1, ''])
    assert.match(log, /^error postgres:\/\/127.0.0.1:1\/x.* cannot be opened.* \[POSTHORN_STORAGE_UNAVAILABLE\]\n$/)
  })

  test('uses colours on terminals only, and not where NO_COLOR is set', async (context) => {
    const colour = `${String.fromCharCode(27)}[31merror`
    const set = { ...process.env }
    context.after(() => {
      process.env = set
    })
    process.env = { TERM: 'xterm' }
    assert.ok((await posthorn(ELSEWHERE, true)).log.startsWith(colour))
    assert.ok((await posthorn(ELSEWHERE)).log.startsWith('error'))
    process.env = { TERM: 'xterm', NO_COLOR: '1' }
    assert.ok((await posthorn(ELSEWHERE, true)).log.startsWith('error'))
  })

  test('says when it is interrupted that it can be run again, and ends with 130', async (context) => {
    const silent = createServer().listen(0, '127.0.0.1')
    context.after(() => silent.close())
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    const interrupted = once(silent, 'connection')
    context.after(async () => (await interrupted)[0].destroy())
    const target = `postgres://me:secret@127.0.0.1:${port}/x`
    const ended = await runAlone(['migrate', '--from', 'sqlite:x.db', '--to', target], { interrupted })
    assert.deepEqual([ended.code, ended.output], [130, ''])
    assert.match(ended.log, /^interrupted; run the same command again/)
  })

  test('says it as JSON to programs', async () => {
    const { code, output, log } = await posthorn([...ELSEWHERE, '--json'])
    assert.deepEqual([code, output], [1, ''])
    const { error } = JSON.parse(log)
    assert.deepEqual([error.code, error.retryable], ['POSTHORN_STORAGE_UNAVAILABLE', true])
  })
})
