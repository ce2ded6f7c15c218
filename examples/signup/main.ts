/**
 * `npm start`: starts the stand-ins for the outside world, the API and the worker, each in a process of its own, runs
 * the experiment, prints the comparison, and stays up for requests of your own until it is interrupted.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { connect } from 'posthorn'
import { closeClient } from './experiment/client.ts'
import { fullScale, quickScale, type Result, runExperiment } from './experiment/experiment.ts'
import { Processes } from './experiment/processes.ts'
import { count, formatDeliveries, formatPhases } from './experiment/report.ts'

const usage = `Usage: npm start -- [options]

  --exit         end after the comparison: with 0 when nothing was lost, with 1 otherwise
  --quick        a shorter experiment
  --data <dir>   keep the database in this folder; by default it lives in a temporary one and goes at the end
  --help         print this text
`

const { values } = parseArgs({
  options: {
    exit: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    data: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

/** The exit code when the run is interrupted before it has a result. */
const INTERRUPTED = 130

type Addresses = Record<'SMTP_URL' | 'FRAUD_URL' | 'STRIPE_BASE_URL' | 'SLACK_WEBHOOK_URL' | 'control', string>

/** The real services that the user has named in the environment: no load is ever sent to these. */
const realServices = ['SMTP_URL', 'FRAUD_URL', 'STRIPE_API_KEY', 'SLACK_WEBHOOK_URL'].filter(
  (name) => process.env[name],
)

/** The stand-ins' addresses, but not where the user has named a real service. */
function serviceAddresses(standIns: Addresses): NodeJS.ProcessEnv {
  const addresses: NodeJS.ProcessEnv = { ...standIns, STRIPE_API_KEY: 'sk_test_stand_in' }
  for (const name of realServices) delete addresses[name]
  if (process.env.STRIPE_API_KEY) delete addresses.STRIPE_BASE_URL
  return addresses
}

async function start(processes: Processes, file: string) {
  const standIns = await processes.start<Addresses>('downstreams/main.ts')
  const environment = serviceAddresses(standIns)
  const parameters = ['--file', file]
  await processes.start('worker.ts', parameters, environment)
  const api = await processes.start<{ port: number }>('api.ts', parameters, environment)
  return { apiPort: api.port, control: standIns.control }
}

function report({ phases, deliveries, accounts, problems }: Result): void {
  const accepted = (deliveries[0]?.served ?? 0) + (deliveries[0]?.lost ?? 0)
  console.log(`\n${formatPhases(phases)}\n\n${formatDeliveries(deliveries)}\n`)
  console.log(`Accounts created, then verified, then charged, once each: ${count(accounts.inOrder)}.`)
  if (problems.length > 0) console.log(`Failed:\n${problems.map((problem) => `- ${problem}`).join('\n')}`)
  else console.log(`Nothing was lost: all ${count(accepted)} accepted sign-ups reached all four services.`)
}

function invite(apiPort: number): void {
  const body = `-H 'content-type: application/json' -d '{"email":"you@example.com","name":"You"}'`
  console.log('\nYour turn, until you press Ctrl-C:\n')
  for (const mode of ['async', 'sync']) {
    console.log(`  curl -s -w ' in %{time_total} s\\n' 'http://127.0.0.1:${apiPort}/signup?mode=${mode}' ${body}`)
  }
}

/** Resolves with the exit code that the run has earned. */
async function run(processes: Processes, folder: string): Promise<number> {
  const file = join(folder, 'signup.db')
  console.log(`Sign-up example: an API and a worker on one SQLite file, ${file}`)
  const site = await start(processes, file)
  if (realServices.length > 0) {
    console.log(`No experiment, because it would send its load to a real service (${realServices.join(', ')}).`)
    if (!values.exit) invite(site.apiPort)
    return 0
  }
  await using post = await connect(`sqlite:${file}`)
  const result = await runExperiment({ ...site, post, file }, values.quick ? quickScale : fullScale)
  report(result)
  if (!values.exit) invite(site.apiPort)
  return result.problems.length === 0 ? 0 : 1
}

async function main(): Promise<void> {
  const folder = values.data === undefined ? mkdtempSync(join(tmpdir(), 'posthorn-signup-')) : resolve(values.data)
  mkdirSync(folder, { recursive: true })
  const processes = new Processes()
  const interrupted = new Promise((end) => {
    process.once('SIGINT', end)
    process.once('SIGTERM', end)
  })
  process.exitCode = INTERRUPTED
  try {
    const done = run(processes, folder).then((exitCode) => {
      process.exitCode = exitCode
      return values.exit ? undefined : interrupted
    })
    await Promise.race([done, interrupted, processes.failure])
  } catch (error) {
    process.exitCode = 1
    console.error(error)
  } finally {
    closeClient()
    await processes.stop()
    if (values.data === undefined) rmSync(folder, { recursive: true, force: true })
  }
}

if (values.help) console.log(usage)
else {
  await main()
  process.exit()
}
