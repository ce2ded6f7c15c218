import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, watch } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import { type PostgresOptions, type PostgresServer, startPostgres } from './postgres.ts'
import { whyNoOwnPostgres } from './postgres-binaries.ts'

async function start(context: TestContext, options?: PostgresOptions): Promise<PostgresServer> {
  const server = await startPostgres(options)
  context.after(() => server.removeAll())
  return server
}

async function connect(context: TestContext, url: string): Promise<Client> {
  const client = new Client({ connectionString: url })
  // The connection ends with the server, which pg reports here.
  client.on('error', () => {})
  await client.connect()
  context.after(() => client.end())
  return client
}

/** Call it before the end: resolves once the server has closed the connection. */
function ended(client: Client): Promise<void> {
  return new Promise((resolve) => client.once('end', resolve))
}

async function firstRow(client: Client, query: string): Promise<unknown> {
  return (await client.query(query)).rows[0]
}

interface Started {
  readonly url: string
  readonly folder: string
}

/** What the process says of its server; rejects if it ends without a word. */
function started(owner: ChildProcess): Promise<Started> {
  return new Promise((resolve, reject) => {
    owner.once('message', (message) => resolve(message as Started))
    owner.once('exit', () => reject(new Error('No server was started.')))
  })
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

describe('a Postgres server of a test', { skip: await whyNoOwnPostgres() }, () => {
  test('answers, with commits on disk unless it was told otherwise', async (context) => {
    const [durable, fast] = await Promise.all([
      start(context),
      start(context, { fsync: false, settings: { max_connections: 7 } }),
    ])
    assert.notEqual(durable.url, fast.url)
    const [first, second] = await Promise.all([connect(context, durable.url), connect(context, fast.url)])
    assert.deepEqual(await firstRow(first, 'SELECT 1 AS one'), { one: 1 })
    assert.deepEqual(await firstRow(first, 'SHOW fsync'), { fsync: 'on' })
    assert.deepEqual(await firstRow(second, 'SHOW fsync'), { fsync: 'off' })
    assert.deepEqual(await firstRow(second, 'SHOW max_connections'), { max_connections: '7' })
  })

  test('keeps what was committed, and nothing else, when it is killed', async (context) => {
    const server = await start(context)
    const client = await connect(context, server.url)
    await client.query('CREATE TABLE items (item int)')
    await client.query('INSERT INTO items VALUES (1)')
    await client.query('BEGIN')
    await client.query('INSERT INTO items VALUES (2)')
    const closed = ended(client)
    const { url } = server
    await server.kill()
    await closed
    assert.equal(server.pid, undefined)
    await assert.rejects(connect(context, url), { code: 'ECONNREFUSED' })
    await server.restart()
    assert.equal(server.url, url)
    const { rows } = await (await connect(context, url)).query('SELECT item FROM items')
    assert.deepEqual(rows, [{ item: 1 }])
  })

  test('restarts with its connections open', async (context) => {
    const server = await start(context)
    const client = await connect(context, server.url)
    const closed = ended(client)
    await server.restart()
    await closed
    assert.deepEqual(await firstRow(await connect(context, server.url), 'SELECT 1 AS one'), { one: 1 })
  })

  for (const end of ['stop', 'kill'] as const) {
    test(`leaves nothing behind after ${end} and removeAll`, async (context) => {
      const server = await start(context)
      const pid = server.pid!
      await server[end]()
      await server.removeAll()
      await server.removeAll()
      assert.equal(isRunning(pid), false)
      assert.equal(existsSync(server.folder), false)
    })
  }

  for (const [end, bringAbout] of [
    ['is killed', (owner: ChildProcess) => owner.kill('SIGKILL')],
    ['ends without a word', (owner: ChildProcess) => owner.send('end')],
  ] as const) {
    test(`is removed when the process that started it ${end}`, async (context) => {
      const temporary = await mkdtemp(join(tmpdir(), 'posthorn-killed-'))
      context.after(() => rm(temporary, { recursive: true, force: true }))
      // Where the tests are root, another user's server is to find its way through.
      await chmod(temporary, 0o755)
      const program = fileURLToPath(new URL('./processes/owner.ts', import.meta.url))
      const owner = fork(program, { env: { ...process.env, TMPDIR: temporary } })
      context.after(() => owner.kill('SIGKILL'))
      const server = await started(owner)
      const client = await connect(context, server.url)
      const changes = watch(temporary, { signal: context.signal })
      const closed = ended(client)
      bringAbout(owner)
      await closed
      for await (const _ of changes) if (!existsSync(server.folder)) break
    })
  }
})
