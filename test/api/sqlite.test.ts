/** The whole way, from `publish` to dead letters, on the SQLite engine. */
import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { connect, type Post, queue, silentLogger, topic } from '../../src/index.ts'

const WORKER = join(import.meta.dirname, 'processes/worker.ts')
const WORKERS_MAX = 10

const jobs = topic<{ name: string }>('jobs')
const quiet = { environment: { logger: silentLogger } }

test('a handler that calls process.exit is stopped at its message, and the others are handled', async (context) => {
  const url = `sqlite:${join(newFolder(context), 'store.db')}`
  await using post = await connect(url, quiet)
  for (const name of ['before', 'deadly', 'after']) await post.publish(jobs, { name })
  for (let workers = 0; !(await isDone(post)); workers++) {
    assert.ok(workers < WORKERS_MAX, 'workers keep dying')
    await runWorker(context, url, post)
  }
  const letters = await post.admin.deadLetters(jobs, 'worker')
  assert.deepEqual(
    letters.map(({ reason, event }) => [reason, event?.data]),
    [['crashed', { name: 'deadly' }]],
  )
  assert.equal(letters[0]?.failures.at(-1)?.code, 'POSTHORN_CRASHED_REPEATEDLY')
})

test('sqlite::memory: is a store of its own connection', async () => {
  const mails = queue<{ to: string }>('mails')
  await using post = await connect('sqlite::memory:', quiet)
  await using other = await connect('sqlite::memory:', quiet)
  const received = Promise.withResolvers<string>()
  post.subscribe(mails, (event) => received.resolve(event.data.to))
  await post.publish(mails, { to: 'ada@example.com' })
  assert.equal(await received.promise, 'ada@example.com')
  assert.deepEqual(await other.admin.topics(), [])
  await assert.rejects(post.publish(mails, { to: 'a' }, { tx: {} }), { code: 'POSTHORN_UNSUPPORTED' })
})

function newFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'posthorn-api-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Runs a worker until it dies, or until there is nothing left for it to do. */
async function runWorker(context: TestContext, url: string, post: Post): Promise<void> {
  const worker = fork(WORKER, [url], { stdio: 'ignore' })
  context.after(() => worker.kill('SIGKILL'))
  const exited = once(worker, 'exit')
  while (isRunning(worker) && !(await isDone(post))) await turn()
  worker.kill('SIGKILL')
  await exited
}

function isRunning(worker: ChildProcess): boolean {
  return worker.exitCode === null && worker.signalCode === null
}

async function isDone(post: Post): Promise<boolean> {
  const [state] = await post.admin.subscriptions(jobs)
  if (state === undefined) return false
  return state.deadLetters === 1 && state.backlog + state.leased + state.returned + state.retrying === 0
}
