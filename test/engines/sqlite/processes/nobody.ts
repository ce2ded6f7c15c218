/** Opens a store in a process without root's permissions. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const NOBODY = 65_534

const SCRIPT = `
const [, engine, environment, file] = process.argv
const { connectSqlite } = await import(engine)
const { systemEnvironment } = await import(environment)
try {
  const opened = await connectSqlite('sqlite:' + file, { environment: systemEnvironment, leaseMs: 1000 })
  await opened.close()
  console.log('opened')
} catch (error) {
  console.log(error.code ?? String(error))
}
`

/** Resolves with `opened`, or with the code of the error. */
export async function runAsNobody(file: string): Promise<string> {
  const source = (path: string) => import.meta.resolve(`../../../../src/${path}`)
  const parameters = [source('engines/sqlite/index.ts'), source('environment/index.ts'), file]
  const settings = { uid: NOBODY, gid: NOBODY, cwd: '/', env: {} }
  const command = ['--input-type=module', '--eval', SCRIPT, ...parameters]
  const { stdout } = await promisify(execFile)(process.execPath, command, settings)
  return stdout.trim()
}
