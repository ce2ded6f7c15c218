/**
 * The crash test: publishers and consumers on one store, killed at random moments and started again, round after round; so is
 * the server, where there is one.
 * Then everything drains in peace, and what came is compared with what was promised.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { connect, type Post, type Random, seededRandom } from 'posthorn'
import { Fleet, type Member } from './fleet.ts'
import { type CrashStore, type EngineName, newStore } from './store.ts'
import { openUserDatabase } from './user-database.ts'
import { isClean, judge, type Verdict } from './verdict.ts'

export interface CrashOptions {
  readonly engine: EngineName
  readonly rounds: number
  readonly seed: number
  onRound(round: number): void
}

export interface CrashResult extends Verdict {
  readonly clean: boolean
  readonly rounds: number
  readonly seed: number
  readonly engine: EngineName
  /** Of processes. */
  readonly kills: number
  readonly serverKills: number
  readonly seconds: number
  /** What had not been delivered, acknowledged or due when the time for draining was over; 0 when all is well. */
  readonly undrained: number
}

const PUBLISHERS = 3
const CONSUMERS = 3
const MOMENT_MS_MAX = 400
const KILLED_SHARE = 0.4
/** In one round of so many the server is killed as well. */
const ROUNDS_PER_SERVER_KILL = 2
/** So many rounds do not wait for the processes to be ready: those are killed while they start. */
const IMPATIENT_SHARE = 0.15
const DRAIN_MS_MAX = 120_000
const LOOK_MS = 50
const SEEDS_PER_PROCESS = 100_000

export async function runCrashTest(options: CrashOptions): Promise<CrashResult> {
  const folder = mkdtempSync(join(tmpdir(), 'posthorn-crash-'))
  const fleet = new Fleet()
  const abort = () => {
    for (const member of fleet.members) void member.kill()
    rmSync(folder, { recursive: true, force: true })
    process.exit(130)
  }
  process.once('SIGINT', abort)
  try {
    return await crashInFolder(folder, fleet, options)
  } finally {
    process.off('SIGINT', abort)
    await fleet.killAll()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function crashInFolder(folder: string, fleet: Fleet, options: CrashOptions): Promise<CrashResult> {
  const ledgerFolder = join(folder, 'ledger')
  mkdirSync(ledgerFolder)
  const store = await newStore(options.engine, join(folder, 'store'))
  try {
    return await crashOn(store, ledgerFolder, fleet, options)
  } finally {
    await fleet.killAll()
    await store.remove()
  }
}

async function crashOn(
  store: CrashStore,
  ledgerFolder: string,
  fleet: Fleet,
  options: CrashOptions,
): Promise<CrashResult> {
  const startedAtMs = performance.now()
  const { engine, rounds, seed } = options
  const { url } = store
  await startAll(fleet, { url, ledgerFolder }, seed)
  const killed = await killInRounds(fleet, store, options)
  await fleet.ready()
  await fleet.stop('publisher')
  await using post = await connect(url)
  const undrained = await drain(post, fleet)
  await fleet.stop('consumer')
  const database = openUserDatabase(url)
  const verdict = await judge(post, database, ledgerFolder)
  await database.close()
  const seconds = Math.round((performance.now() - startedAtMs) / 100) / 10
  const clean = isClean(verdict) && undrained === 0
  return { clean, engine, rounds, seed, ...verdict, undrained, ...killed, seconds }
}

async function startAll(fleet: Fleet, place: { url: string; ledgerFolder: string }, seed: number): Promise<void> {
  const roles = [
    ...Array.from({ length: CONSUMERS }, () => 'consumer' as const),
    ...Array.from({ length: PUBLISHERS }, () => 'publisher' as const),
  ]
  for (const [number, role] of roles.entries()) {
    const processSeed = (seed * roles.length + number) * SEEDS_PER_PROCESS
    fleet.add(role, { ...place, name: `${role}-${number}`, seed: processSeed })
  }
  // Subscriptions come first: a topic's first subscription gets everything from before, but no other one does.
  for (const role of ['consumer', 'publisher'] as const) {
    for (const member of fleet.having(role)) member.start()
    await fleet.ready()
  }
}

async function killInRounds(
  fleet: Fleet,
  { crashServer }: CrashStore,
  { rounds, seed, onRound }: CrashOptions,
): Promise<{ kills: number; serverKills: number }> {
  const random = seededRandom(seed)
  let kills = 0
  let serverKills = 0
  for (let round = 1; round <= rounds; round++) {
    onRound(round)
    if (random.number() >= IMPATIENT_SHARE) await fleet.ready()
    await Promise.race([setTimeout(random.number() * MOMENT_MS_MAX), fleet.failure])
    const chosen = choose(fleet.members, random)
    const crashing = round % ROUNDS_PER_SERVER_KILL === 0 ? crashServer?.() : undefined
    if (crashing) serverKills++
    await Promise.all(chosen.map((member) => member.kill()))
    for (const member of chosen) member.start()
    await crashing
    kills += chosen.length
  }
  return { kills, serverKills }
}

function choose(members: readonly Member[], random: Random): readonly Member[] {
  const chosen = members.filter(() => random.number() < KILLED_SHARE)
  return chosen.length > 0 ? chosen : [members[Math.floor(random.number() * members.length)]!]
}

/** Resolves with how much is left to deliver: 0, unless it takes too long. */
async function drain(post: Post, fleet: Fleet): Promise<number> {
  const untilMs = performance.now() + DRAIN_MS_MAX
  for (;;) {
    const left = await countOpen(post)
    if (left === 0 || performance.now() > untilMs) return left
    await Promise.race([setTimeout(LOOK_MS), fleet.failure])
  }
}

async function countOpen(post: Post): Promise<number> {
  const [topics, subscriptions] = await Promise.all([post.admin.topics(), post.admin.subscriptions()])
  const delayed = topics.reduce((sum, topic) => sum + topic.delayed, 0)
  return subscriptions.reduce(
    (sum, { backlog, leased, retrying, returned, parked }) => sum + backlog + leased + retrying + returned + parked,
    delayed,
  )
}
