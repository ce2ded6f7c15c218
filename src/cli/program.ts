import { createRequire } from 'node:module'
import { Command, CommanderError } from 'commander'
import type { Clock } from '../environment/index.ts'
import { EXIT, report } from './failure.ts'
import { type MigrateOptions, migrate } from './migrate.ts'
import { reopen } from './reopen.ts'
import type { Terminal } from './terminal.ts'

/** By its name, because it lies elsewhere beside the compiled files than beside the sources. */
const { version } = createRequire(import.meta.url)('posthorn/package.json') as { version: string }

const MIGRATE = [
  'Moves everything that an SQLite file holds into Postgres: topics, messages with their partitions and offsets,',
  'subscriptions with their positions, retries, delayed messages, dead letters, steps and remembered ids.',
  'Stop the application first: nobody else may have the file open, or consume from the target, which has to be empty.',
  'It may be stopped at any moment and run again.',
].join(' ')

const REOPEN = [
  'Lets an SQLite file be used again that was moved elsewhere. What it held then is in both stores, and is handled twice,',
  'unless the other one is given up.',
].join(' ')

/** Carries out a command line, without the names of the program. Resolves with the exit code, and never rejects. */
export async function run(parameters: readonly string[], terminal: Terminal, clock: Clock): Promise<number> {
  try {
    await programFor(terminal, clock).parseAsync(parameters, { from: 'user' })
    return EXIT.done
  } catch (error) {
    // It has said what is wrong, or what was asked for.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.misused
    return report(error, terminal, parameters.includes('--json'))
  }
}

function programFor(terminal: Terminal, clock: Clock): Command {
  const program = new Command('posthorn')
    .description('Looks after the stores of Posthorn.')
    .version(version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void terminal.output.write(text),
      writeErr: (text) => void terminal.log.write(text),
    })
    .showHelpAfterError('(posthorn --help lists the commands, posthorn help <command> explains one)')
  program
    .command('migrate')
    .summary('move a store to another engine')
    .description(MIGRATE)
    .requiredOption('--from <url>', 'the store to move, such as sqlite:data/posthorn.db')
    .requiredOption('--to <url>', 'where to, such as postgres://user:password@host/database?schema=posthorn')
    .option('--json', 'write the report, or the error, as JSON')
    .addHelpText('after', '\nExit codes: 0 moved, 1 failed, 2 called wrongly, 130 interrupted.')
    .action((options: MigrateOptions) => migrate(options, terminal, clock))
  program
    .command('reopen')
    .summary('let a store be used again that was moved')
    .description(REOPEN)
    .argument('<url>', 'the store that was moved, such as sqlite:data/posthorn.db')
    .action((url: string) => reopen(url, terminal, clock))
  return program
}
