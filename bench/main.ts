/**
 * `npm run bench`: how fast Posthorn is on this machine, and how near to what the disk and the database can do at best.
 *
 * Processes, as a user would have them; durable; the median of several runs, each on a store of its own.
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Bench, type Scenario } from './bench.ts'
import { formatTable, round } from './report.ts'
import { scaleFor } from './scale.ts'
import { ceiling, scenarios } from './scenarios/index.ts'
import type { Figures } from './statistics.ts'
import { type EngineName, openStores } from './stores.ts'
import { Workspace } from './workspace.ts'

const usage = `Usage: npm run bench -- [options]

  --engine <name>  sqlite (default), postgres or memory; Postgres is started for it, unless
                   POSTHORN_BENCH_POSTGRES_URL names a server
  --quick          about a minute: fewer messages, and a smaller deep backlog
  --tiny           a few hundred messages: whether the benchmark works, not how fast anything is
  --only <name>    one scenario: ${scenarios.map(({ name }) => name).join(', ')}
  --json           one JSON object on standard output, and nothing else
  --help           print this text
`

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'sqlite' },
    quick: { type: 'boolean', default: false },
    tiny: { type: 'boolean', default: false },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function refuse(problem: string): never {
  process.stderr.write(`${problem}\n\n${usage}`)
  process.exit(2)
}

function chosenEngine(): EngineName {
  const { engine } = values
  if (engine === 'sqlite' || engine === 'postgres' || engine === 'memory') return engine
  refuse(`There is no engine ${engine}.`)
}

function chosenScenarios(): readonly Scenario[] {
  const { only } = values
  const chosen = only === undefined ? scenarios : scenarios.filter(({ name }) => name === only)
  return chosen.length > 0 ? [ceiling, ...chosen] : refuse(`There is no scenario ${only}.`)
}

function showProgress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
}

async function measure(bench: Bench, chosen: readonly Scenario[], onScenario: (name: string) => void) {
  const figures: Record<string, number> = {}
  await bench.rehearse()
  for (const scenario of chosen) {
    onScenario(scenario.name)
    for (const [name, value] of Object.entries(await scenario.measure(bench))) figures[name] = round(name, value)
  }
  const memory = Object.entries(figures).filter(([name]) => name.startsWith('rss_'))
  if (memory.length > 0) figures.rss_mb_max = Math.max(...memory.map(([, value]) => value))
  return figures
}

function report(engine: EngineName, scale: string, figures: Figures): void {
  if (values.json) console.log(JSON.stringify({ engine, scale, node: process.version, ...figures }))
  else console.log(`Posthorn on ${engine}, ${scale} scale, Node.js ${process.version}\n\n${formatTable(figures)}`)
}

async function main(): Promise<void> {
  const engine = chosenEngine()
  const chosen = chosenScenarios()
  const scale = scaleFor(values.tiny ? 'tiny' : values.quick ? 'quick' : 'full', engine)
  const workspace = new Workspace()
  // The children find the sources with their types stripped already, as the users of a built package do.
  process.env.NODE_COMPILE_CACHE ??= join(workspace.folder, 'compiled')
  const stores = await openStores(engine, workspace)
  let scenario = ''
  const bench = new Bench(engine, scale, stores, workspace, (what) => showProgress(`${scenario}: ${what}`))
  const interrupt = () => {
    bench.abort()
    process.exit(130)
  }
  process.once('exit', () => workspace.delete())
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const figures = await measure(bench, chosen, (name) => {
    scenario = name
  }).finally(() => stores.close())
  showProgress('')
  report(engine, scale.name, figures)
}

if (values.help) console.log(usage)
else await main()
