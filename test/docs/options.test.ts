/**
 * docs/reference/options.md lists the options that the code knows, no more and no fewer. The code's own lists come
 * from the error that names them when an option is unknown.
 */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { connect, message, PosthornError, queue, topic } from 'posthorn'
import { ROOT } from './pages.ts'

const unknown = { unheardOf: 1 } as object
const LIST = /known are ([\w, ]+)$/

/** The names that the error of `attempt` lists. */
async function knownTo(attempt: () => unknown): Promise<string[]> {
  try {
    await attempt()
  } catch (error) {
    assert.ok(error instanceof PosthornError && error.code === 'POSTHORN_INVALID_OPTION', String(error))
    return LIST.exec(String(error.details.problem))![1]!.split(', ')
  }
  return assert.fail('the unknown option was accepted')
}

/** The names in the first column of the table that follows `<!-- options: name -->`. */
function tableOf(text: string, name: string): string[] {
  const start = text.indexOf(`<!-- options: ${name} -->`)
  assert.notEqual(start, -1, `there is no table ${name}`)
  const rows = text.slice(start).split('\n\n', 1)[0]!.split('| --- |\n')[1]!
  return [...rows.matchAll(/^\| `(\w+)`/gm)].map((match) => match[1]!)
}

const text = await readFile(join(ROOT, 'docs', 'reference', 'options.md'), 'utf8')
const post = await connect('memory:')
const events = topic('events')
const ignore = () => undefined

after(() => post.close())

const lists: Readonly<Record<string, () => unknown>> = {
  connect: () => connect('memory:', unknown),
  environment: () => connect('memory:', { environment: unknown }),
  topic: () => topic('t', unknown),
  retention: () => topic('t', { retention: unknown }),
  publish: () => post.publish(events, 1, unknown),
  'publish-all': () => post.publishAll(events, [1], unknown),
  'publish-all-each': () => post.publishAll(events, [1], () => unknown),
  'publish-all-atomic': () => post.publishAll([], unknown),
  message: () => post.publishAll([message(events, 1, unknown)]),
  subscribe: () => post.subscribe(events, 's', ignore, unknown),
  retry: () => post.subscribe(events, 's', ignore, { retry: unknown }),
  backoff: () => post.subscribe(events, 's', ignore, { retry: { backoff: unknown } }),
  batch: () => post.subscribe(events, 's', ignore, { batch: { size: 1, ...unknown } }),
  ordered: () => post.subscribe(events, 's', ignore, { ordered: unknown }),
  'rate-limit': () => post.subscribe(events, 's', ignore, { rateLimit: { limit: 1, per: 1, ...unknown } }),
  'in-flight': () => post.subscribe(events, 's', ignore, { maxInFlight: { limit: 1, ...unknown } }),
  breaker: () => post.subscribe(events, 's', ignore, { breaker: unknown }),
  probe: () => post.subscribe(events, 's', ignore, { breaker: { probe: unknown } }),
  step: stepWithUnknownOption,
  from: () => post.subscribe(events, 's', ignore, { from: { offset: 1, ...unknown } }),
  peek: () => post.admin.peek(events, unknown),
  'dead-letters': () => post.admin.deadLetters(events, 's', unknown),
  redrive: () => post.admin.redrive(events, 's', unknown),
}

describe('the reference of options', () => {
  for (const [name, attempt] of Object.entries(lists)) {
    test(`${name}: what the code knows is what the page lists`, async () => {
      const known = attempt === lists['publish-all-each'] ? await bulkNames(attempt) : await knownTo(attempt)
      assert.deepEqual(tableOf(text, name).sort(), known.sort())
    })
  }

  test('every table of the page is compared', () => {
    const tables = [...text.matchAll(/<!-- options: (\S+) -->/g)].map((match) => match[1]!)
    assert.deepEqual(tables.sort(), Object.keys(lists).sort())
  })

  test('a queue takes the options of a topic', async () => {
    assert.deepEqual(await knownTo(() => queue('q', unknown)), await knownTo(() => topic('t', unknown)))
  })

  test('the page gives the defaults that the code has', () => {
    const { config, whenFull, version } = topic('t')
    const { partitions } = topic('t', { key: String }).config
    assert.match(text, rowOf('partitions', `\`${config.partitions}\`, and \`${partitions}\` with a \`key\``))
    assert.match(text, rowOf('version', `\`${version}\``))
    assert.match(text, rowOf('whenFull', `\`'${whenFull}'\``))
    assert.match(text, rowOf('deduplicateFor', `\`'${config.deduplicationWindowMs / 3_600_000}h'\``))
    assert.match(text, rowOf('maxAge', `\`'${config.retention.maxAgeMs / 86_400_000}d'\``))
    assert.match(text, rowOf('dropUnread', `\`${config.retention.dropUnread}\``))
    assert.equal(queue('q').config.retention.maxAgeMs, 0)
  })
})

/** Steps are begun within handlers only. */
async function stepWithUnknownOption(): Promise<void> {
  const outcome = Promise.withResolvers<void>()
  const steps = queue('steps')
  post.subscribe(steps, (_event, { step }) => step('s', ignore, unknown).then(outcome.resolve, outcome.reject))
  await post.publish(steps, 1)
  await outcome.promise
}

/** A row whose last column begins with `preset`. */
function rowOf(option: string, preset: string): RegExp {
  return new RegExp(`^\\| \`${option}\` \\|.*\\| ${preset}[^|]*\\|$`, 'm')
}

// What goes wrong for one message interrupts the bulk, whose error carries it as its cause.
async function bulkNames(attempt: () => unknown): Promise<string[]> {
  return await knownTo(async () => {
    try {
      await attempt()
    } catch (error) {
      throw (error as Error).cause
    }
  })
}
