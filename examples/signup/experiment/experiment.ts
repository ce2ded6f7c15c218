/**
 * The experiment: sign-ups within the request and through Posthorn, with all services up and with the mail server
 * down, and then the question whether every sign-up that the API accepted has reached every service.
 */
import { message, type Post } from 'posthorn'
import { readAccounts } from '../accounts.ts'
import { accountChanged } from '../events.ts'
import { BacklogWatch } from './backlog.ts'
import { type Mode, type Outcome, signUp } from './client.ts'
import { closedLoad, openLoad } from './load.ts'
import { startProgress } from './progress.ts'
import { type Delivery, failed, type Phase } from './report.ts'

export interface Scale {
  readonly sync: { readonly requests: number; readonly concurrency: number }
  /** Sign-ups of the first `warmUpSeconds` of a load are carried out and followed, but their latency is left out. */
  readonly async: {
    readonly perSecond: number
    readonly warmUpSeconds: number
    readonly seconds: number
    readonly outageSeconds: number
  }
}

export const fullScale: Scale = {
  sync: { requests: 40, concurrency: 8 },
  async: { perSecond: 200, warmUpSeconds: 3, seconds: 10, outageSeconds: 5 },
}

export const quickScale: Scale = {
  sync: { requests: 8, concurrency: 8 },
  async: { perSecond: 50, warmUpSeconds: 1, seconds: 2, outageSeconds: 1 },
}

const DRAIN_MS_MAX = 60_000
/** A busy machine may take a while to have made the few attempts that tell of an outage. */
const BREAKER_MS_MAX = 20_000

/** The service behind each subscription, by the name that the stand-ins use. */
const serviceOf: Readonly<Record<string, string>> = {
  'welcome-email': 'email',
  'fraud-check': 'fraud',
  'create-customer': 'customers',
  'notify-slack': 'slack',
}

export interface Result {
  readonly phases: readonly Phase[]
  readonly deliveries: readonly Delivery[]
  readonly accounts: Accounts
  /** What must not have happened; empty when all is well. */
  readonly problems: readonly string[]
}

interface Accounts {
  /** Accounts that were created, then verified, then charged, each once. */
  readonly inOrder: number
  readonly others: number
}

interface Site {
  readonly apiPort: number
  /** The URL by which the stand-ins are broken, repaired and questioned. */
  readonly control: string
  readonly post: Post
  readonly file: string
}

export async function runExperiment(site: Site, scale: Scale): Promise<Result> {
  const watch = new BacklogWatch(site.post)
  watch.start()
  try {
    const healthy = [await runSync(site, scale, false), await runAsync(site, scale, false)]
    console.log('3. The mail server goes down, and the same again.')
    await control(site, 'PUT', '/email/broken')
    const outage = [await runSync(site, scale, true), await runAsync(site, scale, true)]
    await watch.breakerOpened(BREAKER_MS_MAX)
    console.log(`4. The mail server is back: ${watch.waiting} deliveries are waiting, ${watch.describeBreakers()}.`)
    await control(site, 'DELETE', '/email/broken')
    await watch.drained(DRAIN_MS_MAX, 'account-status')
    await finishAccounts(site)
    return await settle(site, watch, [...healthy, ...outage])
  } finally {
    await watch.close()
  }
}

const circumstance = ', mail server down'

async function runSync({ apiPort }: Site, { sync }: Scale, outage: boolean): Promise<Phase> {
  const title = `in the request (sync)${outage ? circumstance : ''}`
  const text = `Everything in the request: ${sync.requests} sign-ups, ${sync.concurrency} at a time.`
  const outcomes = await withProgress(`${outage ? '  ' : '1.'} ${text}`, sync.requests, (step) =>
    closedLoad(sync.requests, sync.concurrency, sender(apiPort, 'sync', title, step)),
  )
  return { title, outcomes, warmUp: [] }
}

async function runAsync(site: Site, scale: Scale, outage: boolean): Promise<Phase> {
  const { perSecond, warmUpSeconds, outageSeconds } = scale.async
  const seconds = outage ? outageSeconds : scale.async.seconds
  const title = `with Posthorn (async)${outage ? circumstance : ''}`
  const warmUp = outage ? 0 : warmUpSeconds * perSecond
  const text = `${perSecond} sign-ups a second for ${seconds} s${outage ? '' : `, after ${warmUpSeconds} s of warm-up`}`
  const total = warmUp + perSecond * seconds
  const outcomes = await withProgress(`${outage ? '  ' : '2.'} With Posthorn: ${text}.`, total, (step) =>
    openLoad(perSecond, total / perSecond, sender(site.apiPort, 'async', title, step)),
  )
  return { title, outcomes: outcomes.slice(warmUp), warmUp: outcomes.slice(0, warmUp) }
}

async function withProgress<Value>(text: string, total: number, run: (step: () => void) => Promise<Value>) {
  const progress = startProgress(text, total)
  try {
    return await run(progress.step)
  } finally {
    progress.stop()
  }
}

function sender(port: number, mode: Mode, title: string, step: () => void) {
  const label = title.replaceAll(/\W+/g, '-')
  return async (number: number, intendedAt: number) => {
    const outcome = await signUp(port, mode, `${label}-${number}@example.com`, intendedAt)
    step()
    return outcome
  }
}

// Everybody verifies and pays, while the emails are catching up.
async function finishAccounts({ post, file }: Site): Promise<void> {
  const users = [...readAccounts(file).keys()]
  for (const userId of users) {
    await post.publishAll([
      message(accountChanged, { userId, change: 'verified' }),
      message(accountChanged, { userId, change: 'charged' }),
    ])
  }
}

function countAccounts({ file }: Site): Accounts {
  const histories = [...readAccounts(file).values()]
  const inOrder = histories.filter((changes) => changes.join() === 'created,verified,charged').length
  return { inOrder, others: histories.length - inOrder }
}

async function settle(site: Site, watch: BacklogWatch, phases: readonly Phase[]): Promise<Result> {
  const repairedAt = performance.now()
  const drained = await watch.drained(DRAIN_MS_MAX)
  const served = (await control(site, 'GET', '/served')) as Record<string, Record<string, number>>
  const accepted = acceptedAddresses(phases.flatMap(({ outcomes, warmUp }) => [...warmUp, ...outcomes]))
  const services = [...watch.backlogs.values()].filter(({ subscription }) => serviceOf[subscription] !== undefined)
  const deliveries = services.map((backlog): Delivery => {
    const times = served[serviceOf[backlog.subscription] ?? ''] ?? {}
    const reached = accepted.filter((email) => times[email] !== undefined)
    return {
      subscription: backlog.subscription,
      backlog,
      drainedMs: backlog.drainedAt === undefined ? undefined : Math.max(0, backlog.drainedAt - repairedAt),
      served: reached.length,
      lost: accepted.length - reached.length,
      repeated: reached.reduce((sum, email) => sum + times[email]! - 1, 0),
    }
  })
  const accounts = countAccounts(site)
  const problems = findProblems(phases, deliveries, drained)
  if (accounts.others > 0) problems.push(`${accounts.others} accounts were changed out of order, or not once.`)
  return { phases, deliveries, accounts, problems }
}

/** Whoever was told that the sign-up succeeded is to be served by all four services. */
function acceptedAddresses(outcomes: readonly Outcome[]): string[] {
  return outcomes.filter((outcome) => failed([outcome]) === 0).map(({ email }) => email)
}

function findProblems(phases: readonly Phase[], deliveries: readonly Delivery[], drained: boolean): string[] {
  const [sync, healthy, , outage] = phases
  const problems = [sync, healthy, outage]
    .filter((phase) => phase !== undefined)
    .map(({ title, outcomes, warmUp }) => ({ title, failures: failed([...warmUp, ...outcomes]) }))
    .filter(({ failures }) => failures > 0)
    .map(({ title, failures }) => `${failures} requests failed: ${title}.`)
  if (!drained) problems.push(`The backlog was not drained within ${DRAIN_MS_MAX / 1000} s.`)
  if (deliveries.length !== Object.keys(serviceOf).length) problems.push('A subscription is missing.')
  for (const { subscription, lost, backlog } of deliveries) {
    if (lost > 0) problems.push(`${lost} sign-ups never reached ${subscription}.`)
    if (backlog.deadLetters > 0) problems.push(`${backlog.deadLetters} dead letters of ${subscription}.`)
  }
  return problems
}

async function control(site: Site, method: string, path: string): Promise<unknown> {
  const response = await fetch(new URL(path, site.control), { method })
  if (!response.ok) throw new Error(`The stand-ins answered ${response.status} to ${method} ${path}.`)
  return response.json()
}
