import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import { type ConnectOptions, connect, topic } from 'posthorn'
import { Collector, open } from './setup.ts'

describe('connect', () => {
  for (const url of ['posgres://localhost/x', 'data/posthorn.db', 'C:\\data\\posthorn.db', 'constructor:x']) {
    test(`refuses ${url}`, async () => {
      await assert.rejects(connect(url), { code: 'POSTHORN_UNKNOWN_ENGINE', message: /sqlite:, memory:/ })
    })
  }

  for (const url of ['ftp://user:secret@host/x', 'ftp://user:/secret@host/x', 'ftp://host/x?password=secret']) {
    test(`keeps the password of ${url} out of its errors`, async () => {
      await assert.rejects(connect(url), (error: Error) => !error.message.includes('secret'))
    })
  }

  const wrong: Record<string, unknown> = {
    'an unknown option': { leese: '5s' },
    'a bad duration': { lease: '30 parsecs' },
    'a lease too short to be renewed': { lease: '5ms' },
    'a bad size': { maxMessageBytes: '1MB' },
    'an unknown part of the environment': { environment: { clocks: {} } },
    'a clock without a monotonic part': { environment: { clock: { real: true, now: Date.now, setTimer() {} } } },
    'a logger without a level': { environment: { logger: { info() {}, warn() {}, error() {} } } },
    'a bad list of signals': { closeOnSignals: 'SIGTERM' },
    'a signal that no process can catch': { closeOnSignals: ['SIGTERM', 'SIGKILL'] },
    'a signal that there is none of': { closeOnSignals: ['SIGFOO'] },
    'an empty source': { source: '' },
    'options that are no object': null,
  }
  for (const [name, options] of Object.entries(wrong)) {
    test(`refuses ${name}`, async () => {
      await assert.rejects(connect('memory:', options as ConnectOptions), { code: 'POSTHORN_INVALID_OPTION' })
    })
  }

  test('says of a Node.js without node:sqlite that it is too old', async () => {
    const program = `import('posthorn').then(({ connect }) => connect('sqlite:never-made.db')).catch(({ code }) => console.log(code))`
    const parameters = [...process.execArgv.filter(isCondition), '--no-experimental-sqlite', '--eval', program]
    const child = spawn(process.execPath, parameters, { stdio: ['ignore', 'pipe', 'inherit'] })
    assert.equal((await text(child.stdout)).trim(), 'POSTHORN_UNSUPPORTED_NODE')
  })

  test('refuses what is no URL', async () => {
    await assert.rejects(connect(undefined as unknown as string), { code: 'POSTHORN_INVALID_OPTION' })
  })

  test('takes a URL object', async (context) => {
    const post = await connect(new URL('memory:'))
    context.after(() => post.close())
    assert.deepEqual(await post.admin.topics(), [])
  })
})

test('a logger that throws does not disturb deliveries', async (context) => {
  const broken = () => {
    throw new Error('The disk is full.')
  }
  const logger = { debug: broken, info: broken, warn: broken, error: broken }
  const post = await open(context, { drainTimeout: 0, environment: { logger } })
  const jobs = topic<number>('jobs')
  const attempts = new Collector<number>()
  const subscription = post.subscribe(
    jobs,
    'worker',
    (_, { attempt }) => {
      attempts.add(attempt)
      if (attempt === 1) throw new Error('Not yet.')
    },
    { retry: { backoff: { delay: 0 } } },
  )
  await subscription.ready
  await post.publish(jobs, 1)
  assert.deepEqual(await attempts.of(2), [1, 2])
})

test('a process does not end while a publish waits for room', async () => {
  const program = `
    import { connect, topic } from 'posthorn'
    const post = await connect('memory:')
    const jobs = topic('jobs', { maxBacklog: 1, whenFull: 'wait' })
    await post.publish(jobs, 1)
    setTimeout(() => post.admin.purge(jobs), 20).unref()
    post.publish(jobs, 2).then(() => process.stdout.write('stored'))
  `
  const args = ['--conditions=posthorn-source', '--input-type=module', '--eval', program]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  assert.equal(output, 'stored')
  assert.equal(code, 0)
})

describe('closing', () => {
  const orders = topic<number>('orders')

  test('returns the same promise each time', async (context) => {
    const post = await open(context)
    assert.equal(post.close(), post.close())
    await post.close()
  })

  test('ends everything else with POSTHORN_CLOSED, from the very call on', async (context) => {
    const post = await open(context)
    const pending = post.publish(orders, 1)
    const closing = post.close()
    const closed = { code: 'POSTHORN_CLOSED' }
    await assert.rejects(post.publish(orders, 2), closed)
    await assert.rejects(post.publishAll(orders, [2]), closed)
    await assert.rejects(post.ensureTopics(orders), closed)
    await assert.rejects(post.admin.topics(), closed)
    assert.throws(() => post.subscribe(orders, 's', () => {}), closed)
    await closing
    assert.equal((await pending).duplicate, false)
  })

  test('happens at the end of an await using', async () => {
    let kept: Awaited<ReturnType<typeof connect>>
    {
      await using post = await connect('memory:')
      kept = post
    }
    await assert.rejects(kept.publish(orders, 1), { code: 'POSTHORN_CLOSED' })
  })

  test('lets running handlers publish what they have to, and stores it', async (context) => {
    const url = `memory:${crypto.randomUUID()}`
    const [post, other] = [await open(context, {}, url), await open(context, {}, url)]
    const started = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const followUps = topic<number>('follow-ups')
    let published: unknown
    const subscription = post.subscribe(orders, 'worker', async () => {
      started.resolve()
      await release.promise
      published = await post.publish(followUps, 1)
    })
    await subscription.ready
    await post.publish(orders, 1)
    await started.promise
    const closing = post.close()
    await assert.rejects(post.publish(orders, 2), { code: 'POSTHORN_CLOSED' })
    release.resolve()
    await closing
    assert.ok(published)
    assert.equal((await other.admin.peek(followUps)).length, 1)
  })
})

const PROGRAM = `
  import { connect, topic } from 'posthorn'
  const post = await connect('memory:', { closeOnSignals: true })
  const jobs = topic('jobs')
  post.subscribe(jobs, 'worker', async () => {
    process.stdout.write('started\\n')
    await new Promise((resolve) => process.stdin.once('data', resolve))
    process.stdout.write('finished\\n')
  })
  process.on('exit', (code) => process.stdout.write('exit ' + code))
  await post.publish(jobs, 1)
`

describe('closeOnSignals', { skip: process.platform === 'win32' && 'signals end a process at once on Windows' }, () => {
  async function start() {
    const args = ['--conditions=posthorn-source', '--input-type=module', '--eval', PROGRAM]
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const exit = once(child, 'exit')
    const [first] = await once(child.stdout, 'data')
    assert.equal(String(first), 'started\n')
    return { child, exit }
  }

  test('lets running handlers end, then ends the process by the same signal', async () => {
    const { child, exit } = await start()
    child.kill('SIGTERM')
    child.stdin.write('go on\n')
    const [output] = await once(child.stdout, 'data')
    assert.equal(String(output), 'finished\n')
    child.stdin.end()
    assert.deepEqual(await exit, [null, 'SIGTERM'])
  })

  test('takes one listener for all connections of the process', async (context) => {
    const before = process.listenerCount('SIGTERM')
    const posts = await Promise.all(
      Array.from({ length: 12 }, () => open(context, { closeOnSignals: ['SIGTERM', 'SIGTERM'] })),
    )
    assert.equal(process.listenerCount('SIGTERM'), before + 1)
    await Promise.all(posts.slice(1).map((post) => post.close()))
    assert.equal(process.listenerCount('SIGTERM'), before + 1)
    await posts[0]!.close()
    assert.equal(process.listenerCount('SIGTERM'), before)
  })

  test('a second signal does not wait', async () => {
    const { child, exit } = await start()
    child.kill('SIGINT')
    child.kill('SIGTERM')
    assert.equal((await exit)[0], null)
  })
})

const isCondition = (parameter: string) => parameter.startsWith('--conditions')
