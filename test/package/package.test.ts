import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'

const execute = promisify(execFile)
const root = resolve(import.meta.dirname, '../..')

/** npm hands its own settings down to the scripts that it runs; the npm started here is to behave as a user's does. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_)/i.test(name)))

/** Runs a program and resolves with what it prints; when it fails, the error shows that too. */
async function run(program: string, parameters: string[], cwd: string): Promise<string> {
  const options = { cwd, env: environment, timeout: 120_000, shell: program === 'npm' && process.platform === 'win32' }
  try {
    return (await execute(program, parameters, options)).stdout
  } catch (error) {
    const { stdout } = error as { stdout: string }
    throw new Error(`${program} ${parameters.join(' ')} failed:\n${stdout}`, { cause: error })
  }
}

/** Lays out and packs what `npm publish` would, away from the work tree so that runs cannot meet each other. */
async function pack(folder: string): Promise<string> {
  const staged = join(folder, 'staged')
  await mkdir(staged)
  await run(process.execPath, [join(root, 'scripts/build.ts'), join(staged, 'dist')], root)
  for (const name of ['package.json', 'CHANGELOG.md', 'LICENSE', 'README.md']) {
    await cp(join(root, name), join(staged, name))
  }
  const report = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], staged)
  const [packed] = JSON.parse(report) as { filename: string }[]
  return join(folder, packed!.filename)
}

/** Installs the package in an empty project, offline: its dependencies come from ours, at the versions tested here. */
async function install(tarball: string, project: string): Promise<void> {
  const ours = (name: string) => `file:${join(root, 'node_modules', name)}`
  await cp(join(import.meta.dirname, 'consumer'), project, { recursive: true })
  const manifest = {
    private: true,
    type: 'module',
    dependencies: { posthorn: `file:${tarball}`, zod: ours('zod') },
    overrides: { '@standard-schema/spec': ours('@standard-schema/spec'), commander: ours('commander') },
  }
  await writeFile(join(project, 'package.json'), JSON.stringify(manifest))
  await run('npm', ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund'], project)
}

describe('the package as a user installs it', () => {
  let folder: string
  let project: string

  before(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), 'posthorn-package-')))
    project = join(folder, 'project')
    await install(await pack(folder), project)
  })
  after(() => rm(folder, { recursive: true, force: true }))

  const runProgram = (program: string, url: string) => run(process.execPath, [program, url], project)

  test('brings two small dependencies, without any of their own, and nothing native', async () => {
    const lock = JSON.parse(await readFile(join(project, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { hasInstallScript?: boolean }>
    }
    const packages = Object.keys(lock.packages).filter((name) => /^node_modules\/(?!zod$)/.test(name))
    const wanted = ['@standard-schema/spec', 'commander', 'posthorn'].map((name) => `node_modules/${name}`)
    assert.deepEqual(packages.sort(), wanted)
    const files = await readdir(join(project, 'node_modules/posthorn'), { recursive: true })
    assert.deepEqual(
      files.filter((name) => /\.(node|gyp|so|dylib|dll|exe)$/.test(name)),
      [],
    )
    assert.ok(Object.values(lock.packages).every((entry) => entry.hasInstallScript !== true))
  })

  test('holds compiled files and no sources or tests of its own', async () => {
    const files = await readdir(join(project, 'node_modules/posthorn'), { recursive: true, withFileTypes: true })
    const names = files.filter((entry) => entry.isFile()).map((entry) => entry.name)
    assert.deepEqual(
      names.filter((name) => !/(\.js|\.d\.ts|\.md|^LICENSE|^package\.json)$/.test(name)),
      [],
    )
    assert.deepEqual(
      names.filter((name) => name.includes('.test.')),
      [],
    )
  })

  test('every file refers to compiled files only', async () => {
    const dist = join(project, 'node_modules/posthorn/dist')
    for (const name of (await readdir(dist, { recursive: true })).filter((name) => /\.(js|d\.ts)$/.test(name))) {
      const reference = /(from |import\(|new URL\()['"]\.[^'"]*\.ts['"]/.exec(await readFile(join(dist, name), 'utf8'))
      assert.equal(reference, null, `${name} refers to a source file`)
    }
  })

  test('every entry point can be imported', async () => {
    const { exports } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { exports: object }
    const entries = Object.keys(exports).filter((entry) => !entry.endsWith('.json'))
    const imports = entries.map((entry) => `import '${entry.replace('.', 'posthorn')}'`).join('\n')
    await writeFile(join(project, 'imports.mjs'), imports)
    await runProgram('imports.mjs', '')
  })

  test('has a command', async () => {
    const output = await run('npx', ['--offline', '--no', 'posthorn', '--', '--version'], project)
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    assert.equal(output, `${version}\n`)
  })

  test('says which package to install for a server', async () => {
    await writeFile(
      join(project, 'server.mjs'),
      `import { connect } from 'posthorn'
       await connect('postgres://nobody@127.0.0.1:1/none').catch(({ code, details }) => console.log(code, details.driver))`,
    )
    assert.equal(await runProgram('server.mjs', ''), 'POSTHORN_DRIVER_MISSING pg\n')
  })

  for (const store of ['memory:', 'sqlite:file']) {
    const url = (name: string) => (store === 'memory:' ? store : `sqlite:${join(project, `${name}.db`)}`)

    test(`a JavaScript program publishes and receives (${store})`, async () => {
      assert.equal(await runProgram('plain.js', url('plain')), 'received u1\n')
    })

    test(`a TypeScript program publishes and receives (${store})`, async () => {
      const output = await runProgram('typed.ts', url('typed'))
      assert.equal(output, 'received a@example.com POSTHORN_INVALID_MESSAGE\n')
    })
  }

  test('a TypeScript program compiles against the declarations, which are checked too', async () => {
    const compilerOptions = {
      target: 'es2024',
      lib: ['es2024', 'esnext.disposable'],
      module: 'nodenext',
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      types: ['node'],
      typeRoots: [join(root, 'node_modules/@types')],
    }
    await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['typed.ts'] }))
    const compiler = join(root, 'node_modules/typescript/bin/tsc')
    assert.equal(await run(process.execPath, [compiler], project), '')
  })
})

test('the lock file names no registry', async () => {
  const lock = await readFile(join(root, 'package-lock.json'), 'utf8')
  assert.doesNotMatch(lock, /"resolved": "https?:/)
})
