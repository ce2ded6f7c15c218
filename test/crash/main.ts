/** `npm run crash`: kills processes at random and counts what was lost. Ends with 1 when anything was. */
import { parseArgs } from 'node:util'
import { runCrashTest } from './run.ts'
import { type EngineName, engines } from './store.ts'

const usage = `Usage: npm run crash -- [options]

  --engine <e>  sqlite or postgres, whose server is killed as well. Default sqlite
  --rounds <n>  how often processes are killed. Default 20
  --seed <n>    of everything random; printed with the result. Default 1
  --json        one JSON object on standard output, and nothing else
  --help        print this text
`

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'sqlite' },
    rounds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function wholeNumber(option: 'rounds' | 'seed'): number {
  const number = Number(values[option])
  if (Number.isSafeInteger(number) && number >= 0) return number
  return refuse(`--${option} takes a whole number.`)
}

function engineName(): EngineName {
  return engines.find((name) => name === values.engine) ?? refuse(`--engine takes one of ${engines.join(', ')}.`)
}

function refuse(problem: string): never {
  process.stderr.write(`${problem}\n\n${usage}`)
  process.exit(2)
}

async function main(): Promise<void> {
  const rounds = wholeNumber('rounds')
  const result = await runCrashTest({
    engine: engineName(),
    rounds,
    seed: wholeNumber('seed'),
    onRound: (round) => {
      if (process.stderr.isTTY) process.stderr.write(`\r\u001b[Kround ${round} of ${rounds}`)
    },
  })
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
  if (values.json) console.log(JSON.stringify(result))
  else console.log(result)
  if (!result.clean) process.exitCode = 1
}

if (values.help) console.log(usage)
else await main()
