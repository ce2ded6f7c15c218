#!/usr/bin/env node
import { systemClock } from '../environment/index.ts'
import { EXIT } from './failure.ts'
import { run } from './program.ts'
import { processTerminal } from './terminal.ts'

// A move may end anywhere, and goes on with the next run.
process.once('SIGINT', () => {
  processTerminal.log.write('interrupted; run the same command again to go on\n')
  process.exit(EXIT.interrupted)
})

process.exitCode = await run(process.argv.slice(2), processTerminal, systemClock)
